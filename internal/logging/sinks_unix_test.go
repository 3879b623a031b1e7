//go:build unix

package logging

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	testTime = time.Unix(1767323045, 6_000)
	testLine = fmt.Sprintf("%d.000006: critical: text\n", testTime.Unix())
)

func mustFile(t *testing.T, path string) Sink {
	t.Helper()
	s, err := File(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func checkFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); string(got) != want || err != nil {
		t.Errorf("%s holds %q, %v, want %q", path, got, err, want)
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustFile(t, path)
	if !s.Write(testTime, Critical, []byte("text")) {
		t.Error("not written")
	}
	checkFile(t, path, "old\n"+testLine)

	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Reopen(); err != nil {
		t.Fatal(err)
	}
	s.Write(testTime, Critical, []byte("text"))
	checkFile(t, path, testLine)
	checkFile(t, path+".1", "old\n"+testLine)
}

func TestFailedReopenKeepsTheFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := mustFile(t, filepath.Join(dir, "log"))
	if err := os.Rename(dir, dir+".1"); err != nil {
		t.Fatal(err)
	}
	if err, want := s.Reopen(), "unable to open specified log file: No such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	s.Write(testTime, Critical, []byte("text"))
	checkFile(t, filepath.Join(dir+".1", "log"), testLine)
}

func TestFifoWithoutReader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := File(path); err == nil {
		s.Close()
		t.Error("no error; opening it otherwise would wait for a reader")
	}
}

// A pipe or socket that nobody reads costs the patience for one message, not
// for ever, and next to nothing for those that follow.
func TestNobodyReads(t *testing.T) {
	t.Parallel()
	pipe := make([]int, 2)
	if err := unix.Pipe(pipe); err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, fds := range map[string][2]int{"pipe": {pipe[0], pipe[1]}, "socket": pair} {
		s := &stream{fd: fds[1], kind: kindOf(fds[1])}
		text := []byte(strings.Repeat("x", maxText))
		start := time.Now()
		lost := 0
		for range 1000 {
			if !s.Write(testTime, Error, text) {
				lost++
			}
		}
		if d := time.Since(start); d > 200*patience {
			t.Errorf("%s: 1000 messages took %v", name, d)
		}
		if lost < 100 {
			t.Errorf("%s: %d messages lost, want most", name, lost)
		}
		buf := make([]byte, 1<<20)
		for { // now somebody reads
			if n, err := unix.Read(fds[0], buf); err != nil || n < len(text) {
				break
			}
			if s.Write(testTime, Error, []byte("again")) {
				break
			}
		}
		if s.stuck {
			t.Errorf("%s: still stuck though somebody reads", name)
		}
		unix.Close(fds[0])
		if s.Write(testTime, Error, []byte("text")) {
			t.Errorf("%s: written though nobody is there", name)
		}
		unix.Close(fds[1])
	}
}

// A file on a frozen file system, which a full pipe stands in for, costs the
// patience once. What was being written then is not lost.
func TestFileThatWaits(t *testing.T) {
	t.Parallel()
	pipe := make([]int, 2)
	if err := unix.Pipe(pipe); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	s := &stream{fd: pipe[1], kind: plain}
	if err := unix.SetNonblock(pipe[1], true); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); err == nil; {
		_, err = unix.Write(pipe[1], make([]byte, 512)) // until it is full
	}
	if err := unix.SetNonblock(pipe[1], false); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := range 100 {
		if got, want := s.Write(testTime, Critical, []byte("text")), i == 0; got != want {
			t.Errorf("message %d: taken %v, want %v", i, got, want)
		}
	}
	if took := time.Since(start); took < filePatience || took > 20*filePatience {
		t.Errorf("a hundred messages took %v", took)
	}
	start = time.Now()
	buf := make([]byte, 64<<10)
	for got := ""; got != testLine; {
		n, err := unix.Read(pipe[0], buf)
		if err != nil {
			t.Fatal(err)
		}
		got = strings.TrimLeft(got+string(buf[:n]), "\x00")
	}
	for !s.Write(testTime, Critical, []byte("text")) {
		if time.Since(start) > time.Minute {
			t.Fatal("nothing is written any more")
		}
	}
	if n, err := unix.Read(pipe[0], buf); string(buf[:n]) != testLine || err != nil {
		t.Errorf("got %q, %v", buf[:n], err)
	}
}

func TestJournalStream(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Fstat(2, &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	s := Stderr().(*stream)
	if !s.journal {
		t.Fatal("standard error is not taken for the journal's stream")
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino+1))
	if Stderr().(*stream).journal {
		t.Error("standard error is taken for another stream")
	}

	path := filepath.Join(t.TempDir(), "log")
	file := mustFile(t, path).(*stream)
	file.journal = true
	file.Write(testTime, Critical, []byte("text"))
	checkFile(t, path, "<3>"+testLine)
}

func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2*maxText)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestSyslogAndJournal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sink Sink
		want string
	}{
		{Syslog(), "<14>" + testTime.Format(time.Stamp) + " qemu-ga: info: guest-ping called"},
		{Journal(), "MESSAGE=guest-ping called\nPRIORITY=6\nSYSLOG_IDENTIFIER=qemu-ga\nSYSLOG_TIMESTAMP=" + testTime.Format(time.Stamp) + "\n"},
	} {
		path := filepath.Join(t.TempDir(), "socket")
		d := tt.sink.(*datagram)
		d.path = path
		text := []byte("guest-ping called")
		if d.Write(testTime, Info, text) {
			t.Error("written before the daemon was there")
		}
		conn := listen(t, path)
		for end := time.Now().Add(10 * time.Second); !d.Write(testTime, Info, text); time.Sleep(absence / 10) {
			if time.Now().After(end) {
				t.Fatal("not written")
			}
		}
		if got := receive(t, conn); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
		conn.Close()
		os.Remove(path)
		conn = listen(t, path) // the daemon starts again
		if !d.Write(testTime, Info, text) {
			t.Error("not written after the daemon started again")
		}
		if got := receive(t, conn); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}

		start := time.Now()
		lost := 0
		for range 10000 { // nobody reads
			if !d.Write(testTime, Info, text) {
				lost++
			}
		}
		if lost == 0 || time.Since(start) > time.Minute {
			t.Errorf("nobody reads: %d of 10000 lost in %v", lost, time.Since(start))
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkAudit(b *testing.B) {
	path := filepath.Join(b.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buf := make([]byte, maxText)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	sink := Syslog().(*datagram)
	sink.path = path
	l := New(Discard, sink, false)
	b.ReportAllocs()
	for b.Loop() {
		l.Auditf("guest-ping called")
	}
}

// TestZoneThatWaits writes to syslog where the time zone is in a pipe. Package
// time looks for it once, so this takes a process of its own.
func TestZoneThatWaits(t *testing.T) {
	if os.Getenv("TEST_ZONE_THAT_WAITS") != "" {
		for range 2 {
			got := string(appendSyslog(nil, testTime, Info, []byte("text")))
			if want := "<14>" + testTime.UTC().Format(time.Stamp) + " qemu-ga: info: text"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		return
	}
	pipe := filepath.Join(t.TempDir(), "zone")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestZoneThatWaits$")
	cmd.Env = append(os.Environ(), "TZ=:"+pipe, "TEST_ZONE_THAT_WAITS=yes")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
