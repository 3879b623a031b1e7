package files

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An error behind data is for the next read to tell.
func TestReadErrorBehindData(t *testing.T) {
	table := newTable(t)
	path := tempFIFO(t)
	h, out := mustOpen(t, table, path, "r"), mustOpen(t, table, path, "w")
	if _, err := unix.FcntlInt(uintptr(table.files[out].fd), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		t.Skip("no large pipe: ", err)
	}
	n, err := write(t, table, out, strings.Repeat("x", 1<<20))
	expect(t, "write", n, err, 1<<20)
	s, err := read(t, table, h, 2<<20) // more than is there, streamed
	if err != nil {
		t.Fatal(err)
	}
	if r := decode(t, s); r.Count != 1<<20 || r.EOF {
		t.Errorf("got %d, eof %t", r.Count, r.EOF)
	}
	_, err = read(t, table, h, 2<<20)
	expectError(t, "next", err, "failed to read file: Resource temporarily unavailable")
}
