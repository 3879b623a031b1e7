package root

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"testing"
)

func TestOpenNumbered(t *testing.T) {
	d := Dir(t.TempDir())
	for _, name := range []string{
		"cpu10", "cpu9", "cpu0", "cpu", "cpufreq", "cpu1x", "cpu-1", "cpu+2", "cpu 3", "cpu04", "xcpu5", "cpu00",
		"cpu18446744073709551615", "cpu18446744073709551616",
	} {
		if err := os.Mkdir(d.Path("/"+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir, got, err := d.OpenNumbered("/", "cpu")
	if want := []uint64{0, 9, 10, 1<<64 - 1}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v, want %v", got, err, want)
	}
	dir.Close()
	if _, _, err := d.OpenNumbered("/missing", "cpu"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

func TestDirectory(t *testing.T) {
	d := Dir(t.TempDir())
	if err := os.MkdirAll(d.Path("/a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Path("/a/b/attribute"), []byte("on \n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open("/a/b/attribute"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file is no directory: %v", err)
	}
	dir, err := d.Open("/a")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if data, err := dir.ReadAttribute("b/attribute"); err != nil || string(data) != "on \n" {
		t.Errorf("got %q, %v", data, err)
	}
	for name, want := range map[string]error{"b": syscall.EISDIR, "c": syscall.ENOENT} {
		_, err := dir.ReadAttribute(name)
		if e, ok := errors.AsType[*fs.PathError](err); !ok || e.Err != want || e.Path != "/a/"+name {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	for name, want := range map[string]error{"b": nil, "b/": nil, "b/attribute": nil, "b/attribute/": syscall.ENOTDIR, "c/": syscall.ENOENT} {
		if err := dir.Check(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// More than goes into the buffer at once.
func TestReadDir(t *testing.T) {
	d := Dir(t.TempDir())
	var want []string
	for i := range 1000 {
		name := fmt.Sprintf("%0200d", i)
		want = append(want, name)
		if err := os.WriteFile(d.Path("/"+name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.ReadDir("/"); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %d names, %v, want %d", len(got), err, len(want))
	}
	if names, err := d.ReadDir("/missing"); !errors.Is(err, fs.ErrNotExist) || len(names) > 0 {
		t.Errorf("missing: %v, %v", names, err)
	}
}
