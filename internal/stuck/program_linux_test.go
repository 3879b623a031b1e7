package stuck

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
)

// TestExecutableHanging looks for programs where nobody answers.
func TestExecutableHanging(t *testing.T) {
	fs := guesttest.NewHangingFS(t)
	defer func(limit time.Duration) { programLimit = limit }(programLimit)
	programLimit = 50 * time.Millisecond

	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!"+fs.File+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fs.Lost, fs.File, script} {
		if err := Executable(path); err != ErrStuck {
			t.Errorf("%s: got %v, want %v", path, err, ErrStuck)
		}
	}
	if fs.Waiting() == 0 {
		t.Error("the server was not asked")
	}
	fs.Answer()
	programLimit = time.Minute
	for path, want := range map[string]error{fs.Lost: unix.ENOENT, fs.File: nil, script: nil} {
		// What was late may not have returned yet.
		var err error
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if err = Executable(path); !errors.Is(err, ErrStuck) {
				break
			}
		}
		if err != want {
			t.Errorf("%s, once there is an answer: got %v, want %v", path, err, want)
		}
	}
}
