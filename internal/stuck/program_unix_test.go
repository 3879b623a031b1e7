//go:build unix

package stuck

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExecutable(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		file("script", "#!/bin/sh\n", 0o755):                        nil,
		file("script of itself", "#! "+dir+"/script -x\n", 0o755):   nil,
		file("script without interpreter", "#!\n", 0o755):           nil,
		file("script with no such interpreter", "#!/nope\n", 0o755): nil,
		file("script of a fifo", "#!"+fifo+"\n", 0o755):             nil,
		file("empty", "", 0o755):                                    nil,
		file("text", "", 0o644):                                     unix.EACCES,
		fifo:                                                        nil,
		dir:                                                         nil,
		filepath.Join(dir, "missing"):                               unix.ENOENT,
		filepath.Join(dir, "empty", "file"):                         unix.ENOTDIR,
	} {
		if err := Executable(path); err != want {
			t.Errorf("%s: got %v, want %v", path, err, want)
		}
	}
}
