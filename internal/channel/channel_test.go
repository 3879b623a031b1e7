//go:build linux

package channel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal makes a pseudo terminal: what is written to the master, the host's
// end, is read from the device at path.
func terminal(t *testing.T) (master *os.File, path string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "master")
	t.Cleanup(func() { master.Close() })
	return master, fmt.Sprint("/dev/pts/", n)
}

// accept waits for a client with a limit.
func accept(t *testing.T, ch interface {
	Accept(context.Context) (io.ReadWriteCloser, error)
},
) io.ReadWriteCloser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := ch.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestSerial(t *testing.T) {
	master, path := terminal(t)
	// What came before the agent is not for it, and the line is cooked yet.
	if _, err := master.WriteString("stale\n"); err != nil {
		t.Fatal(err)
	}
	port, err := OpenSerial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()

	// The terminal has echoed it.
	if _, err := io.ReadFull(master, make([]byte, len("stale\r\n"))); err != nil {
		t.Fatal(err)
	}

	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	if _, err := master.Write(every); err != nil {
		t.Fatal(err)
	}
	conn := accept(t, port)
	got := make([]byte, len(every))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != string(every) {
		t.Errorf("in: got %q, %v", got, err)
	}
	if _, err := conn.Write(every); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(master, got); err != nil || string(got) != string(every) {
		t.Errorf("out: got %q, %v", got, err)
	}

	// The line hangs up: the stream ends. The device is gone; the port waits
	// for it, without a busy loop, until it is told to end.
	master.Close()
	if n, err := conn.Read(got); err == nil {
		t.Errorf("after the hang-up: %q", got[:n])
	}
	conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := port.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want to wait", err)
	}
}

// TestSerialComesBack replaces the device behind a path, as when a line has
// hung up or a port was plugged in anew.
func TestSerialComesBack(t *testing.T) {
	master, path := terminal(t)
	link := filepath.Join(t.TempDir(), "port")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	port, err := OpenSerial(link)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	master.Close()

	again, path := terminal(t)
	if err := errors.Join(os.Remove(link), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	// What comes before the port has been opened again is lost.
	accepted := make(chan struct{})
	defer close(accepted)
	go func() {
		for {
			select {
			case <-time.After(retry + retry/2):
				again.WriteString("hello\n")
			case <-accepted:
				return
			}
		}
	}()
	conn := accept(t, port)
	defer conn.Close()
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

// TestCloseEndsRead closes a stream while it is read, as when the agent ends.
func TestCloseEndsRead(t *testing.T) {
	master, path := terminal(t)
	port, err := OpenSerial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	master.WriteString("x")
	conn := accept(t, port)
	go func() {
		time.Sleep(50 * time.Millisecond)
		conn.Close()
	}()
	if _, err := io.ReadAll(conn); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	// The next client is not affected.
	master.WriteString("y")
	next := accept(t, port)
	defer next.Close()
	b := make([]byte, 1)
	if _, err := next.Read(b); err != nil || b[0] != 'y' {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	regular := filepath.Join(dir, "regular")
	if err := os.WriteFile(regular, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 108))
	for _, tt := range []struct {
		open func() (io.Closer, error)
		want string
	}{
		{func() (io.Closer, error) { return OpenVirtioSerial("/nonexistent") }, "error opening channel '/nonexistent': No such file or directory"},
		{func() (io.Closer, error) { return OpenVirtioSerial(regular) }, "not a device that can be waited for"},
		{func() (io.Closer, error) { return OpenSerial("/dev/null") }, "error opening channel '/dev/null': Inappropriate ioctl for device"},
		{func() (io.Closer, error) { return ListenUnix(long) }, "UNIX socket path '" + long + "' is too long"},
		{func() (io.Closer, error) { return ListenUnix(regular) }, "Failed to bind socket to " + regular + ": Address already in use"},
		{func() (io.Closer, error) { return ListenUnix("/nonexistent/s") }, "Failed to bind socket to /nonexistent/s: No such file or directory"},
		{func() (io.Closer, error) { return ListenVsock("1234") }, "error parsing address '1234'"},
		{func() (io.Closer, error) { return ListenVsock("x:1") }, "Failed to parse cid 'x'"},
		{func() (io.Closer, error) { return ListenVsock("1:4294967296") }, "Failed to parse port '4294967296'"},
		{func() (io.Closer, error) { return Inherit(0) }, "unsupported listen fd type"},
	} {
		c, err := tt.open()
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	if _, err := os.Stat(regular); err != nil {
		t.Error("a file that is no socket was removed")
	}
}

func TestListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	// Left over from an agent that was killed.
	old, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	old.Close()
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		client, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn := accept(t, l)
		defer conn.Close()
		fmt.Fprint(client, i)
		b := make([]byte, 1)
		if _, err := conn.Read(b); err != nil || b[0] != byte('0'+i) {
			t.Errorf("client %d: got %q, %v", i, b, err)
		}
		// A client that leaves with data unread resets the connection.
		fmt.Fprint(conn, "unread")
		client.Close()
		if _, err := conn.Read(b); err == nil {
			t.Error("the client left, and nobody noticed")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := l.Accept(ctx); err == nil {
		t.Error("Accept goes on after its context is done")
	}
	l.Close()
}

// TestInherit takes over a socket as a service manager passes it.
func TestInherit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	f, err := listener.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd())) // Inherit owns it
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	l, err := Inherit(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn := accept(t, l)
	defer conn.Close()
	fmt.Fprint(conn, "hello\n")
	if line, err := bufio.NewReader(client).ReadString('\n'); line != "hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
}
