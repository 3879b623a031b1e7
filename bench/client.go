//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// limit is how long a single read or write may take before the agent counts as
// hung.
const limit = 60 * time.Second

// newline ends every request and every reply.
var newline = []byte("\n")

// A conn is a client's connection, as cheap as can be: blocking system calls
// on a socket that the Go runtime knows nothing of. The first error stays, and
// makes all that follows do nothing.
type conn struct {
	fd  int
	buf []byte
	err error
}

// connect connects to the unix socket at path.
func connect(path string) *conn {
	c := &conn{fd: -1}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.err = os.NewSyscallError("socket", err)
		return c
	}
	c.fd = fd
	timeout := unix.NsecToTimeval(limit.Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &timeout); err != nil {
			c.fail(os.NewSyscallError("setsockopt", err))
		}
	}
	for {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err != unix.EINTR {
			break
		}
	}
	c.fail(os.NewSyscallError("connect", err))
	return c
}

func (c *conn) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *conn) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

// send writes requests.
func (c *conn) send(b []byte) {
	for len(b) > 0 && c.err == nil {
		n, err := unix.Write(c.fd, b)
		switch {
		case err == nil:
			b = b[n:]
		case err != unix.EINTR:
			c.fail(os.NewSyscallError("write", err))
		}
	}
}

// receive reads what there is into b, but not nothing.
func (c *conn) receive(b []byte) int {
	for c.err == nil {
		n, err := unix.Read(c.fd, b)
		switch {
		case n > 0:
			return n
		case err == nil:
			c.fail(fmt.Errorf("the agent closed the connection"))
		case err != unix.EINTR:
			c.fail(os.NewSyscallError("read", err))
		}
	}
	return 0
}

// skip reads the reply to the only request under way and returns its size.
// It is written to b in pieces, one over the other.
func (c *conn) skip(b []byte) (size int) {
	for c.err == nil {
		n := c.receive(b)
		size += n
		if n > 0 && b[n-1] == '\n' {
			break
		}
	}
	return size
}

// skipLines reads n replies, of which there are no more.
func (c *conn) skipLines(b []byte, n int) {
	for n > 0 && c.err == nil {
		n -= bytes.Count(b[:c.receive(b)], newline)
	}
}

// reply reads the reply to the only request under way. It is valid until the
// next call.
func (c *conn) reply() []byte {
	if c.buf == nil {
		c.buf = make([]byte, 4<<10)
	}
	n := 0
	for c.err == nil {
		if n == len(c.buf) {
			c.buf = append(c.buf, make([]byte, len(c.buf))...)
		}
		n += c.receive(c.buf[n:])
		if n > 0 && c.buf[n-1] == '\n' {
			break
		}
	}
	return c.buf[:n]
}

// ask sends a request and returns the reply, which has to be a success.
func (c *conn) ask(request []byte) []byte {
	c.send(request)
	r := c.reply()
	if c.err == nil && !bytes.Contains(r[:min(len(r), 64)], []byte(`"return"`)) {
		c.fail(fmt.Errorf("got %s to %s", clip(r), clip(request)))
	}
	return r
}

// sync is what the first request on a connection should be.
func (c *conn) sync() {
	c.ask(syncRequest)
}

// open opens a file through the agent.
func (c *conn) open(path, mode string) (handle int) {
	return c.number("return", c.ask(request("guest-file-open", `{"path":%q,"mode":%q}`, path, mode)))
}

// shut closes a file through the agent.
func (c *conn) shut(handle int) {
	c.ask(request("guest-file-close", `{"handle":%d}`, handle))
}

// number returns a member of a reply.
func (c *conn) number(name string, reply []byte) int {
	if c.err != nil {
		return 0
	}
	_, text, _ := bytes.Cut(reply, []byte(`"`+name+`": `))
	end := 0
	for end < len(text) && '0' <= text[end] && text[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(string(text[:end]))
	if err != nil {
		c.fail(fmt.Errorf("no number %s in %s", name, clip(reply)))
	}
	return n
}

// expect checks the base64 in a member of a reply.
func (c *conn) expect(name string, reply, want []byte) {
	if c.err != nil {
		return
	}
	_, text, _ := bytes.Cut(reply, []byte(`"`+name+`": "`))
	text, _, ok := bytes.Cut(text, []byte(`"`))
	got := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(got, text)
	if !ok || err != nil || !bytes.Equal(got[:n], want) {
		c.fail(fmt.Errorf("%s is not the data expected in %s", name, clip(reply)))
	}
}

// request returns the bytes of a request.
func request(command, arguments string, args ...any) []byte {
	return fmt.Appendf(nil, `{"execute":%q,"arguments":%s}`+"\n", command, fmt.Sprintf(arguments, args...))
}

var (
	pingRequest = request("guest-ping", "{}")
	syncRequest = request("guest-sync", `{"id":%d}`, 1000)
)

// clip shortens what may be megabytes.
func clip(b []byte) []byte { return b[:min(len(b), 200)] }
