//go:build unix

package root

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestResolve(t *testing.T) {
	d := Dir(t.TempDir())
	for _, dir := range []string{"/sys/devices/pci0/vda", "/sys/dev/block", "/abs"} {
		if err := os.MkdirAll(d.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"/sys/dev/block/8:0": "../../devices/pci0/vda",
		"/abs/link":          "/sys/dev",
		"/abs/loop":          "loop",
		"/abs/up":            "../../../../etc",
		"/abs/dangling":      "nowhere",
	} {
		if err := os.Symlink(target, d.Path(link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, want string
		err        error
	}{
		{"/sys/dev/block/8:0", "/sys/devices/pci0/vda", nil},
		{"/abs/link/block/8:0", "/sys/devices/pci0/vda", nil},
		{"/", "/", nil},
		{"/abs/loop", "", syscall.ELOOP},
		{"/abs/up", "", syscall.ENOENT}, // not the real /etc
		{"/abs/dangling", "", syscall.ENOENT},
		{"/missing", "", syscall.ENOENT},
	} {
		got, err := d.Resolve(tt.name)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: got %q, %v, want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestReadFile(t *testing.T) {
	d := Dir(t.TempDir())
	if err := syscall.Mkfifo(d.Path("/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := d.ReadFile("/fifo"); err != nil || len(data) != 0 {
		t.Errorf("a FIFO without a writer: %q, %v", data, err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(string(d), "zero")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadFile("/zero"); !errors.Is(err, errLarge) {
		t.Errorf("a file without end: %v", err)
	}
	if line, err := Dir("").ReadLine("/proc/sys/kernel/ostype"); err != nil || line == "" {
		t.Errorf("/proc: %q, %v", line, err)
	}
	if err := d.Store("/missing", "1", time.Minute); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Store made a file: %v", err)
	}
}
