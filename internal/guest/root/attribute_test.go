package root

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

func TestReadAttribute(t *testing.T) {
	for name, want := range map[string]error{"/missing": syscall.ENOENT, "/": syscall.EISDIR} {
		if _, err := Dir(t.TempDir()).ReadAttribute(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if data, err := Dir("").ReadAttribute("/proc/sys/kernel/ostype"); err != nil || strings.TrimSpace(string(data)) == "" {
		t.Errorf("%q, %v", data, err)
	}
	// No end, but one read.
	if data, err := Dir("").ReadAttribute("/dev/zero"); err != nil || len(data) != len(page{}) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}
