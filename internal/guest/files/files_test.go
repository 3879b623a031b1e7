//go:build unix

package files

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// counter makes handles as the agent's state directory does.
type counter struct {
	mu   sync.Mutex
	next int64
	err  error
}

func (c *counter) NextHandle() (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.next++
	return c.next + 999, nil
}

func newTable(t testing.TB) *Table {
	table := New(Config{Handles: new(counter)})
	t.Cleanup(func() {
		for h := range table.files {
			if _, err := table.close(context.Background(), qga.HandleArgs{Handle: h}); err != nil {
				t.Error(err)
			}
		}
		if table.places != 0 {
			t.Errorf("%d places are still taken", table.places)
		}
	})
	return table
}

func mustOpen(t testing.TB, table *Table, path, mode string) qga.Handle {
	t.Helper()
	h, err := table.open(t.Context(), qga.FileOpenArgs{Path: path, Mode: &mode})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// read returns the reply to guest-file-read as it goes over the wire.
func read(t testing.TB, table *Table, h qga.Handle, count int64) (string, error) {
	t.Helper()
	var out bytes.Buffer
	w := wire.NewWriter(&out)
	err := table.read(t.Context(), qga.FileReadArgs{Handle: h, Count: &count}, w)
	if errFlush := w.Flush(); errFlush != nil {
		t.Fatal(errFlush)
	}
	return out.String(), err
}

func write(t testing.TB, table *Table, h qga.Handle, data string) (int64, error) {
	t.Helper()
	r, err := table.write(t.Context(), qga.FileWriteArgs{Handle: h, Data: []byte(data)})
	if r.EOF {
		t.Error("a write met an end of file")
	}
	return r.Count, err
}

func seek(t testing.TB, table *Table, h qga.Handle, offset int64, whence qga.Whence) (int64, error) {
	t.Helper()
	r, err := table.seek(t.Context(), qga.FileSeekArgs{Handle: h, Offset: offset, Whence: whence})
	return r.Position, err
}

// reply is the reply to a read of no more than a megabyte.
func reply(data string, eof bool) string {
	return fmt.Sprintf(`{"count": %d, "buf-b64": "%s", "eof": %t}`,
		len(data), base64.StdEncoding.EncodeToString([]byte(data)), eof)
}

func expect[T comparable](t testing.TB, what string, got T, err error, want T) {
	t.Helper()
	if err != nil || got != want {
		t.Errorf("%s: got %v, %v, want %v", what, got, err, want)
	}
}

func expectError(t testing.TB, what string, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("%s: got error %v, want %q", what, err, want)
	}
}

func tempFile(t testing.TB, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tempFIFO(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	fifo := tempFIFO(t)
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	table := newTable(t)
	for _, test := range []struct{ path, mode, want string }{
		{dir + "/nope", "r", "failed to open file '" + dir + "/nope' (mode: 'r'): No such file or directory"},
		{dir + "/a/b", "w", "failed to open file '" + dir + "/a/b' (mode: 'w'): No such file or directory"},
		{dir, "w", "failed to open file '" + dir + "' (mode: 'w'): Is a directory"},
		{dir, "r+", "failed to open file '" + dir + "' (mode: 'r+'): Is a directory"},
		{dangling, "w", "failed to open file '" + dangling + "' (mode: 'w'): No such file or directory"},
		{fifo, "w", "failed to open file '" + fifo + "' (mode: 'w'): No such device or address"},
		{"", "r", "failed to open file '' (mode: 'r'): No such file or directory"},
		{dir, "", "invalid file open mode ''"},
		{dir, "x", "invalid file open mode 'x'"},
		{dir, "rw", "invalid file open mode 'rw'"},
		{dir, "br", "invalid file open mode 'br'"},
		{dir, "re", "invalid file open mode 're'"},
		{dir, "+r", "invalid file open mode '+r'"},
	} {
		_, err := table.open(t.Context(), qga.FileOpenArgs{Path: test.path, Mode: &test.mode})
		expectError(t, fmt.Sprintf("open %s %q", test.path, test.mode), err, test.want)
	}
	if n := len(entries(t, dir)); n != 1 {
		t.Errorf("%d files in the directory, want only the link", n)
	}
}

func entries(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A handle that cannot be made costs neither a descriptor nor a place.
func TestOpenWithoutHandle(t *testing.T) {
	c := &counter{err: errors.New("failed to commit persistent state to disk")}
	table := New(Config{Handles: c, MaxOpen: 1})
	before := descriptors(t)
	for range 3 {
		_, err := table.open(t.Context(), qga.FileOpenArgs{Path: "/dev/null"})
		expectError(t, "open", err, "failed to commit persistent state to disk")
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	c.err = nil
	h := mustOpen(t, table, "/dev/null", "r")
	if _, err := table.close(t.Context(), qga.HandleArgs{Handle: h}); err != nil {
		t.Error(err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	return len(entries(t, "/dev/fd"))
}

func TestMaxOpen(t *testing.T) {
	table := New(Config{Handles: new(counter), MaxOpen: 3})
	var open []qga.Handle
	for range 3 {
		open = append(open, mustOpen(t, table, "/dev/null", "r"))
	}
	for range 2 {
		_, err := table.open(t.Context(), qga.FileOpenArgs{Path: "/dev/null"})
		expectError(t, "one more", err, "failed to open file '/dev/null' (mode: 'r'): Too many open files")
	}
	for _, h := range open {
		if _, err := table.close(t.Context(), qga.HandleArgs{Handle: h}); err != nil {
			t.Fatal(err)
		}
	}
	h := mustOpen(t, table, "/dev/null", "r")
	if slices.Contains(open, h) {
		t.Errorf("handle %d was given out twice", h)
	}
	table.close(t.Context(), qga.HandleArgs{Handle: h})
}

func TestMaxOpenLeavesDescriptors(t *testing.T) {
	table := New(Config{Handles: new(counter), MaxOpen: 1 << 30})
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if want := uint64(limit.Cur) / 2; uint64(table.max) != want {
		t.Errorf("up to %d files, want %d", table.max, want)
	}
}

// A new file is 0666 whatever the umask; an old one stays as it was.
func TestPermissions(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	table := newTable(t)
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("contents"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"w", "wb", "a", "ab", "w+", "wb+", "w+b", "a+", "ab+", "a+b"} {
		path := filepath.Join(dir, "new "+mode)
		mustOpen(t, table, path, mode)
		expectMode(t, path, 0o666)
		mustOpen(t, table, old, mode)
		expectMode(t, old, 0o600)
		if mode[0] == 'w' {
			if fi, _ := os.Stat(old); fi.Size() != 0 {
				t.Errorf("mode %s left %d bytes", mode, fi.Size())
			}
		}
	}
}

func expectMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != want {
		t.Errorf("%s has mode %v, want %v", path, fi.Mode(), want)
	}
}

func TestDescriptorFlags(t *testing.T) {
	table := newTable(t)
	path := tempFile(t, "")
	for mode, want := range map[string]int{
		"r": unix.O_RDONLY, "rb": unix.O_RDONLY,
		"r+": unix.O_RDWR, "rb+": unix.O_RDWR, "r+b": unix.O_RDWR,
		"w": unix.O_WRONLY, "wb": unix.O_WRONLY,
		"w+": unix.O_RDWR, "wb+": unix.O_RDWR, "w+b": unix.O_RDWR,
		"a": unix.O_WRONLY | unix.O_APPEND, "ab": unix.O_WRONLY | unix.O_APPEND,
		"a+": unix.O_RDWR | unix.O_APPEND, "ab+": unix.O_RDWR | unix.O_APPEND, "a+b": unix.O_RDWR | unix.O_APPEND,
	} {
		fd := table.files[mustOpen(t, table, path, mode)].fd
		got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		expect(t, "flags of "+mode, got&(unix.O_ACCMODE|unix.O_APPEND|unix.O_NONBLOCK), err, want|unix.O_NONBLOCK)
		got, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		expect(t, "close on exec of "+mode, got, err, unix.FD_CLOEXEC)
	}
}

func TestUnknownHandle(t *testing.T) {
	table := newTable(t)
	closed := mustOpen(t, table, "/dev/null", "r")
	if _, err := table.close(t.Context(), qga.HandleArgs{Handle: closed}); err != nil {
		t.Fatal(err)
	}
	for _, h := range []qga.Handle{closed, 0, -1, 1 << 62} {
		want := fmt.Sprintf("handle '%d' has not been found", h)
		// What else is wrong is of no interest.
		_, err := read(t, table, h, -1)
		expectError(t, "read", err, want)
		bad := int64(7)
		_, err = table.write(t.Context(), qga.FileWriteArgs{Handle: h, Count: &bad})
		expectError(t, "write", err, want)
		_, err = seek(t, table, h, 0, 7)
		expectError(t, "seek", err, want)
		_, err = table.flush(t.Context(), qga.HandleArgs{Handle: h})
		expectError(t, "flush", err, want)
		_, err = table.close(t.Context(), qga.HandleArgs{Handle: h})
		expectError(t, "close", err, want)
	}
}

func TestInvalidCount(t *testing.T) {
	table := newTable(t)
	h := mustOpen(t, table, tempFile(t, "abc"), "r+")
	for _, n := range []int64{-1, 48<<20 + 1, -1 << 63, 1<<63 - 1} {
		_, err := read(t, table, h, n)
		expectError(t, "read", err, fmt.Sprintf("value '%d' is invalid for argument count", n))
	}
	for _, n := range []int64{-1, 4} {
		_, err := table.write(t.Context(), qga.FileWriteArgs{Handle: h, Data: []byte("abc"), Count: &n})
		expectError(t, "write", err, fmt.Sprintf("value '%d' is invalid for argument count", n))
	}
	got, err := read(t, table, h, 48<<20)
	expect(t, "largest read", got, err, reply("abc", true))
}

func TestReadAndSeek(t *testing.T) {
	table := newTable(t)
	h := mustOpen(t, table, tempFile(t, "hello world\n"), "r")
	for _, step := range []struct {
		do   string // read or the start of a seek
		n    int64
		want string
		err  string
	}{
		{"read", 3, reply("hel", false), ""},
		{"read", 0, reply("", false), ""},
		{"read", 9, reply("lo world\n", false), ""}, // exactly to the end
		{"read", 1, reply("", true), ""},
		{"read", 0, reply("", false), ""},
		{"cur", -2, "10", ""},
		{"read", 100, reply("d\n", true), ""},
		{"set", 6, "6", ""},
		{"read", 3, reply("wor", false), ""},
		{"cur", 0, "9", ""},
		{"end", -12, "0", ""},
		{"set", -5, "", "failed to seek file: Invalid argument"},
		{"set", 100, "100", ""},
		{"read", 5, reply("", true), ""},
		{"3", 0, "", "invalid whence code 3"},
		{"-1", 0, "", "invalid whence code -1"},
	} {
		var got string
		var err error
		if step.do == "read" {
			got, err = read(t, table, h, step.n)
		} else {
			whence := map[string]qga.Whence{
				"set": qga.SeekSet, "cur": qga.SeekCur, "end": qga.SeekEnd, "3": 3, "-1": -1,
			}[step.do]
			var p int64
			if p, err = seek(t, table, h, step.n, whence); err == nil {
				got = fmt.Sprint(p)
			}
		}
		what := fmt.Sprintf("%s %d", step.do, step.n)
		if step.err != "" {
			expectError(t, what, err, step.err)
		} else {
			expect(t, what, got, err, step.want)
		}
	}
	_, err := write(t, table, h, "x")
	expectError(t, "write", err, "failed to write to file: Bad file descriptor")
	got, err := write(t, table, h, "")
	expect(t, "write of nothing", got, err, 0)
}

// The end of a file is not sticky.
func TestReadGrowingFile(t *testing.T) {
	table := newTable(t)
	path := tempFile(t, "a")
	h := mustOpen(t, table, path, "r")
	got, err := read(t, table, h, 4096)
	expect(t, "first", got, err, reply("a", true))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprint(f, "bc")
	got, err = read(t, table, h, 4096)
	expect(t, "grown", got, err, reply("bc", true))
}

func TestDefaultCount(t *testing.T) {
	table := newTable(t)
	data := strings.Repeat("x", 5000)
	h := mustOpen(t, table, tempFile(t, data), "r")
	var out bytes.Buffer
	w := wire.NewWriter(&out)
	if err := table.read(t.Context(), qga.FileReadArgs{Handle: h}, w); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	expect(t, "read", out.String(), nil, reply(data[:4096], false))
}

// What the C agent does to the bytes and the position of a ten-byte file,
// except that there is no buffer to be flushed.
func TestModes(t *testing.T) {
	for _, test := range []struct {
		mode     string
		want     []string // position, 3 bytes read, write of ABC, position, 3 bytes read
		contents string
	}{
		{"r", []string{"0", "012", "!", "3", "345"}, "0123456789"},
		{"r+", []string{"0", "012", "3", "6", "678"}, "012ABC6789"},
		{"w", []string{"0", "!", "3", "3", "!"}, "ABC"},
		{"w+", []string{"0", "", "3", "3", ""}, "ABC"},
		{"a", []string{"0", "!", "3", "13", "!"}, "0123456789ABC"},
		{"a+", []string{"0", "012", "3", "13", ""}, "0123456789ABC"},
	} {
		table := newTable(t)
		path := tempFile(t, "0123456789")
		h := mustOpen(t, table, path, test.mode)
		position := func() string {
			p, err := seek(t, table, h, 0, qga.SeekCur)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(p)
		}
		reading := func() string {
			s, err := read(t, table, h, 3)
			if err != nil {
				expectError(t, "read in mode "+test.mode, err, "failed to read file: Bad file descriptor")
				return "!"
			}
			return string(decode(t, s).Data)
		}
		got := []string{position(), reading()}
		n, err := write(t, table, h, "ABC")
		if err != nil {
			expectError(t, "write in mode "+test.mode, err, "failed to write to file: Bad file descriptor")
			got = append(got, "!")
		} else {
			got = append(got, fmt.Sprint(n))
		}
		// Others see it now.
		contents, err := os.ReadFile(path)
		expect(t, "contents after mode "+test.mode, string(contents), err, test.contents)
		got = append(got, position(), reading())
		if !slices.Equal(got, test.want) {
			t.Errorf("mode %s: got %q, want %q", test.mode, got, test.want)
		}
	}
}

func decode(t testing.TB, reply string) qga.FileReadResult {
	t.Helper()
	var r qga.FileReadResult
	if err := json.Unmarshal([]byte(reply), &r); err != nil {
		t.Fatal(err)
	}
	if int64(len(r.Data)) != r.Count {
		t.Errorf("%d bytes, but count is %d", len(r.Data), r.Count)
	}
	return r
}

func TestDirectory(t *testing.T) {
	table := newTable(t)
	h := mustOpen(t, table, t.TempDir(), "r")
	_, err := read(t, table, h, 10)
	expectError(t, "read", err, "failed to read file: Is a directory")
	_, err = read(t, table, h, 10<<20)
	expectError(t, "large read", err, "failed to read file: Is a directory")
	got, err := read(t, table, h, 0)
	expect(t, "read of nothing", got, err, reply("", false))
	if _, err := table.flush(t.Context(), qga.HandleArgs{Handle: h}); err != nil {
		t.Error(err)
	}
}

func TestFIFO(t *testing.T) {
	table := newTable(t)
	path := tempFIFO(t)
	h := mustOpen(t, table, path, "r")
	const again = "failed to read file: Resource temporarily unavailable"

	got, err := read(t, table, h, 10)
	expect(t, "read without a writer", got, err, reply("", true))
	out := mustOpen(t, table, path, "w")
	_, err = read(t, table, h, 10)
	expectError(t, "read without data", err, again)
	_, err = read(t, table, h, 10<<20)
	expectError(t, "large read without data", err, again)
	n, err := write(t, table, out, "xyzUVW")
	expect(t, "write", n, err, 6)
	got, err = read(t, table, h, 3)
	expect(t, "read", got, err, reply("xyz", false))
	got, err = read(t, table, h, 10)
	expect(t, "read of what is there", got, err, reply("UVW", false))
	_, err = read(t, table, h, 10)
	expectError(t, "read after it", err, again)
	_, err = seek(t, table, h, 0, qga.SeekCur)
	expectError(t, "seek", err, "failed to seek file: Illegal seek")

	// A FIFO takes as much as it has room for.
	n, err = write(t, table, out, strings.Repeat("x", 1<<20))
	if err != nil || n == 0 || n == 1<<20 {
		t.Errorf("write of too much: got %d, %v, want a part", n, err)
	}
	_, err = write(t, table, out, "x")
	expectError(t, "write without room", err, "failed to write to file: Resource temporarily unavailable")
	got, err = read(t, table, h, 2<<20)
	if r := decode(t, got); err != nil || r.Count != n || r.EOF {
		t.Errorf("read of all: got %d, %t, %v, want %d", r.Count, r.EOF, err, n)
	}

	if _, err := table.close(t.Context(), qga.HandleArgs{Handle: h}); err != nil {
		t.Fatal(err)
	}
	_, err = write(t, table, out, "x")
	expectError(t, "write without a reader", err, "failed to write to file: Broken pipe")
}

func TestFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full")
	}
	table := newTable(t)
	h := mustOpen(t, table, "/dev/full", "w")
	_, err := write(t, table, h, "x")
	expectError(t, "write", err, "failed to write to file: No space left on device")
	if _, err := table.flush(t.Context(), qga.HandleArgs{Handle: h}); err != nil {
		t.Errorf("flush: %v, but nothing was held back", err)
	}
}

// A write that the disk cuts short fails, and the position tells how far it
// went.
func TestShortWrite(t *testing.T) {
	const room = 100
	table := newTable(t)
	h := mustOpen(t, table, tempFile(t, ""), "w")
	if _, err := seek(t, table, h, maxFileSize(t, table.files[h].fd)-room, qga.SeekSet); err != nil {
		t.Fatal(err)
	}
	start, _ := seek(t, table, h, 0, qga.SeekCur)
	_, err := write(t, table, h, strings.Repeat("x", room+1))
	expectError(t, "write", err, "failed to write to file: File too large")
	end, err := seek(t, table, h, 0, qga.SeekCur)
	expect(t, "position", end-start, err, room)
}

// maxFileSize finds the size that no file may exceed, by bisection.
func maxFileSize(t *testing.T, fd int) int64 {
	t.Helper()
	low, high := int64(0), int64(1<<62)
	for low < high {
		mid := low + (high-low+1)/2
		if unix.Ftruncate(fd, mid) == nil {
			low = mid
		} else {
			high = mid - 1
		}
	}
	if err := unix.Ftruncate(fd, 0); err != nil {
		t.Fatal(err)
	}
	return low
}

// Reads of every kind of size give the bytes of the file, a true count, and an
// end of file when they came up short.
func TestReadSizes(t *testing.T) {
	const size = 3<<20 + 12345
	data := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(data)
	path := tempFile(t, string(data))
	table := newTable(t)
	for _, count := range []int64{
		1, 2, 3, 4095, 4097, pieceSize, wholeMax - 1, wholeMax, wholeMax + 1, wholeMax + 2, wholeMax + pieceSize,
		2<<20 + 1, size - 2, size - 1, size, size + 1, 48 << 20,
	} {
		h := mustOpen(t, table, path, "r")
		for at := int64(0); ; {
			s, err := read(t, table, h, count)
			if err != nil {
				t.Fatal(err)
			}
			r := decode(t, s)
			if !bytes.Equal(r.Data, data[at:at+r.Count]) {
				t.Fatalf("count %d: wrong data at %d", count, at)
			}
			if r.EOF != (r.Count < count) {
				t.Fatalf("count %d: %d bytes with eof %t", count, r.Count, r.EOF)
			}
			first := `{"buf-b64"`
			if r.Count <= wholeMax && (count <= wholeMax || r.EOF && r.Count < wholeMax-1) {
				first = `{"count"`
			}
			if !strings.HasPrefix(s, first) {
				t.Errorf("count %d: begins with %s, want %s", count, s[:11], first)
			}
			at += r.Count
			if r.EOF || at > 10*count {
				break
			}
		}
		if _, err := table.close(t.Context(), qga.HandleArgs{Handle: h}); err != nil {
			t.Fatal(err)
		}
	}
}

// stalled is a client that takes nothing until released.
type stalled struct{ entered, release chan struct{} }

func (s stalled) Write(p []byte) (int, error) {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-s.release
	return len(p), nil
}

// A client that does not take its reply holds up neither other files nor, for
// long, those who want the same file.
func TestStuckReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(Config{Handles: new(counter)})
		path := tempFile(t, strings.Repeat("x", 4<<20))
		before := descriptors(t)
		h, other := mustOpen(t, table, path, "r"), mustOpen(t, table, path, "r")

		client := stalled{make(chan struct{}, 1), make(chan struct{})}
		done := make(chan error)
		go func() {
			count := int64(4 << 20)
			done <- table.read(context.Background(), qga.FileReadArgs{Handle: h, Count: &count}, wire.NewWriter(client))
		}()
		<-client.entered

		start := time.Now()
		s, err := read(t, table, other, 3)
		expect(t, "other file", s, err, reply("xxx", false))
		if d := time.Since(start); d != 0 {
			t.Errorf("the other file took %v", d)
		}
		_, err = read(t, table, h, 3)
		expectError(t, "same file", err, fmt.Sprintf("handle '%d' is in use by another client", h))
		if d := time.Since(start); d != patience {
			t.Errorf("gave up after %v, want %v", d, patience)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := table.seek(ctx, qga.FileSeekArgs{Handle: h}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		if _, err := table.close(t.Context(), qga.HandleArgs{Handle: h}); err != nil {
			t.Errorf("close: %v", err)
		}
		_, err = read(t, table, h, 3)
		expectError(t, "after close", err, fmt.Sprintf("handle '%d' has not been found", h))

		close(client.release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if _, err := table.close(t.Context(), qga.HandleArgs{Handle: other}); err != nil {
			t.Error(err)
		}
		if after := descriptors(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
		if table.places != 0 {
			t.Errorf("%d places are still taken", table.places)
		}
	})
}

// Whoever found a file before it was closed cannot use it after: the descriptor
// may be another file's.
func TestFoundBeforeClose(t *testing.T) {
	table := newTable(t)
	h := mustOpen(t, table, "/dev/null", "r")
	f, err := table.find(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.close(t.Context(), qga.HandleArgs{Handle: h}); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("handle '%d' has not been found", h)
	for range 2 {
		expectError(t, "acquire", f.acquire(t.Context()), want)
	}
}

// Closing a file in the middle of whatever else is done to it is safe.
func TestCloseInUse(t *testing.T) {
	table := newTable(t)
	path := tempFile(t, strings.Repeat("x", 2<<20))
	before := descriptors(t)
	for range 50 {
		h := mustOpen(t, table, path, "r+")
		var wg sync.WaitGroup
		check := func(err error) {
			if err != nil && err.Error() != fmt.Sprintf("handle '%d' has not been found", h) {
				t.Error(err)
			}
		}
		for range 2 {
			wg.Go(func() { _, err := read(t, table, h, 2<<20); check(err) })
			wg.Go(func() { _, err := write(t, table, h, "y"); check(err) })
			wg.Go(func() { _, err := seek(t, table, h, 0, qga.SeekSet); check(err) })
			wg.Go(func() { _, err := table.close(t.Context(), qga.HandleArgs{Handle: h}); check(err) })
		}
		wg.Wait()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// The largest read needs little memory, and the next one no buffer.
func TestReadMemory(t *testing.T) {
	path := tempFile(t, "")
	if err := os.Truncate(path, 48<<20); err != nil {
		t.Fatal(err)
	}
	table := newTable(t)
	h := mustOpen(t, table, path, "r")
	count := int64(48 << 20)
	w := wire.NewWriter(io.Discard)
	allocated := func() uint64 {
		var before, after runtime.MemStats
		if _, err := seek(t, table, h, 0, qga.SeekSet); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&before)
		if err := table.read(t.Context(), qga.FileReadArgs{Handle: h, Count: &count}, w); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if n := allocated(); n > 4<<20 {
		t.Errorf("the first read allocated %d bytes", n)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	allocated() // in case that the collector took the buffer
	if n := allocated(); n > 256<<10 {
		t.Errorf("another read allocated %d bytes", n)
	}
}

// The buffer is no memory that stays.
func TestScratchGoesAway(t *testing.T) {
	var s scratch
	b := s.take(wholeMax)
	b.data[0] = 'x'
	s.give(b)
	b = nil
	runtime.GC()
	if b := s.take(wholeMax); b.data[0] == 'x' {
		t.Error("the buffer survived a collection")
	}
}

func TestAudit(t *testing.T) {
	var lines []string
	table := New(Config{Handles: new(counter), Audit: func(format string, args ...any) {
		lines = append(lines, fmt.Sprintf(format, args...))
	}})
	h, err := table.open(t.Context(), qga.FileOpenArgs{Path: "/dev/null"})
	if err != nil {
		t.Fatal(err)
	}
	table.close(t.Context(), qga.HandleArgs{Handle: h})
	want := []string{
		"guest-file-open called, filepath: /dev/null, mode: r",
		"guest-file-open, handle: 1000",
		"guest-file-close called, handle: 1000",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

func BenchmarkRead(b *testing.B) {
	table := newTable(b)
	h := mustOpen(b, table, tempFile(b, strings.Repeat("0123456789abcdef", 3<<20)), "r")
	for _, count := range []int64{4 << 10, 64 << 10, 1 << 20, 48 << 20} {
		b.Run(fmt.Sprintf("%dKiB", count>>10), func(b *testing.B) {
			w := wire.NewWriter(io.Discard)
			b.SetBytes(count)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := seek(b, table, h, 0, qga.SeekSet); err != nil {
					b.Fatal(err)
				}
				if err := table.read(context.Background(), qga.FileReadArgs{Handle: h, Count: &count}, w); err != nil {
					b.Fatal(err)
				}
				w.EndMessage()
				w.Flush()
			}
		})
	}
}

func BenchmarkOpenClose(b *testing.B) {
	table := newTable(b)
	path := tempFile(b, "")
	for b.Loop() {
		h := mustOpen(b, table, path, "r")
		if _, err := table.close(context.Background(), qga.HandleArgs{Handle: h}); err != nil {
			b.Fatal(err)
		}
	}
}
