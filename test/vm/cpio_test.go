//go:build linux

package vm

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"testing"
)

func TestArchive(t *testing.T) {
	var a archive
	a.add("/init", 0o755, []byte("#!/bin/sh\n"))
	a.add("etc/vm/ports", 0, nil)
	a.add("etc/vm/../odd", 0o640, []byte("12345"))
	a.add("/sbin", fs.ModeSymlink|0o777, []byte("bin"))
	a.mkdir("/etc")
	a.mkdir("/")

	got := unpack(t, a.bytes())
	want := []string{
		"init 100755 #!/bin/sh\n",
		"etc 40755 ",
		"etc/vm 40755 ",
		"etc/vm/ports 100000 ",
		"etc/odd 100640 12345",
		"sbin 120777 bin",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

// unpack reads a newc archive as the kernel does and returns a line for each
// file: name, mode, data.
func unpack(t *testing.T, data []byte) []string {
	t.Helper()
	r := bytes.NewReader(data)
	next := func(n int) []byte {
		b := make([]byte, n)
		if _, err := r.Read(b); n > 0 && err != nil {
			t.Fatal(err)
		}
		for (len(data)-r.Len())%4 != 0 {
			if c, err := r.ReadByte(); err != nil || c != 0 {
				t.Fatalf("padding %#x, error %v", c, err)
			}
		}
		return b
	}
	var files []string
	inodes := make(map[int]bool)
	for {
		header := make([]byte, 110)
		if _, err := r.Read(header); err != nil {
			t.Fatal(err)
		}
		if magic := string(header[:6]); magic != "070701" {
			t.Fatalf("magic %q", magic)
		}
		field := func(i int) (n int) {
			if _, err := fmt.Sscanf(string(header[6+8*i:][:8]), "%x", &n); err != nil {
				t.Fatalf("field %d: %v", i, err)
			}
			return n
		}
		name := next(field(11))
		content := next(field(6))
		if name[len(name)-1] != 0 {
			t.Fatalf("name %q without NUL", name)
		}
		name = name[:len(name)-1]
		if string(name) == "TRAILER!!!" {
			break
		}
		if inodes[field(0)] {
			t.Errorf("%s: inode %d is another's", name, field(0))
		}
		inodes[field(0)] = true
		files = append(files, fmt.Sprintf("%s %o %s", name, field(1), content))
	}
	if r.Len() != 0 {
		t.Errorf("%d bytes after the trailer", r.Len())
	}
	return files
}
