package root

import (
	"errors"
	"os"
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

func TestReadLine(t *testing.T) {
	d := Dir(t.TempDir())
	for contents, want := range map[string]string{
		"254:16\n": "254:16", " QEMU    \n": "QEMU", "\n": "", "a\nb\n": "a\nb",
		"254:1": "unexpected EOF", "a\nb": "unexpected EOF", "": "unexpected EOF",
	} {
		if err := os.WriteFile(d.Path("/attribute"), []byte(contents), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := d.ReadLine("/attribute")
		if err != nil {
			got += err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", contents, got, want)
		}
	}
}
