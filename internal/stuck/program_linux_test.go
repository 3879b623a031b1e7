package stuck_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/internal/stuck"
)

// TestExecutableHanging looks for programs where nobody answers.
func TestExecutableHanging(t *testing.T) {
	fs := guesttest.NewHangingFS(t)
	defer stuck.SetProgramLimit(50 * time.Millisecond)()

	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!"+fs.File+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fs.Lost, fs.File, script} {
		if err := stuck.Executable(path); err != stuck.ErrStuck {
			t.Errorf("%s: got %v, want %v", path, err, stuck.ErrStuck)
		}
	}
	// Whatever is looked for in a directory, it takes no more than that directory.
	dead := filepath.Join(fs.Lost, "bin")
	for i := range 100 {
		if err := stuck.Executable(filepath.Join(dead, strconv.Itoa(i))); err != stuck.ErrStuck {
			t.Fatalf("program %d in a dead directory: got %v, want %v", i, err, stuck.ErrStuck)
		}
	}
	defer stuck.SetProgramLimit(time.Minute)()
	if err := stuck.Executable("/bin/sh"); err != nil {
		t.Errorf("/bin/sh: %v", err)
	}
	if fs.Waiting() == 0 {
		t.Error("the server was not asked")
	}
	fs.Answer()
	defer stuck.SetProgramLimit(time.Minute)()
	for path, want := range map[string]error{fs.Lost: unix.ENOENT, fs.File: nil, script: nil} {
		// What was late may not have returned yet.
		var err error
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if err = stuck.Executable(path); !errors.Is(err, stuck.ErrStuck) {
				break
			}
		}
		if err != want {
			t.Errorf("%s, once there is an answer: got %v, want %v", path, err, want)
		}
	}
}
