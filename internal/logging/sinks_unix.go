//go:build unix

package logging

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/internal/stuck"
)

// severity returns the level as syslog has it.
func (l Level) severity() int {
	return [...]int{Error: 3, Critical: 3, Warning: 4, Message: 5, Info: 6, Debug: 7}[l]
}

// ident is the name of the agent in syslog and journal; administrators filter
// for it.
const ident = "qemu-ga"

// patience is how long a message waits for a pipe, a terminal or a socket to
// take it. After one message waited in vain, the next ones do not wait, until
// one goes through.
const patience = 100 * time.Millisecond

// filePatience is the same for a file, which takes messages at once or is on a
// disk that is slow, gone or frozen.
const filePatience = 2 * time.Second

// stream is a sink of lines: standard error or a log file.
type stream struct {
	path    string // of the log file; empty for standard error
	fd      int
	kind    kind
	journal bool // standard error is a stream of the journal
	stuck   bool // the last message was not taken
	buf     []byte
	// late, unless nil, gets the end of a write to a file that was no longer
	// waited for.
	late chan bool
}

// kind is what is known about writes to a descriptor.
type kind int

const (
	plain   kind = iota // a regular file or device, which poll knows nothing of
	waiting             // a pipe or terminal: pipeBuf bytes may be written after poll
	socket              // a socket, such as a journal stream
)

// Stderr returns a sink for standard error. If that is a stream of the journal,
// as JOURNAL_STREAM tells, lines get the prefix that the journal takes the
// level from.
func Stderr() Sink {
	s := &stream{fd: 2, kind: kindOf(2)}
	var st unix.Stat_t
	if dev, ino, ok := strings.Cut(os.Getenv("JOURNAL_STREAM"), ":"); ok && unix.Fstat(2, &st) == nil {
		s.journal = dev == fmt.Sprint(st.Dev) && ino == fmt.Sprint(st.Ino)
	}
	return s
}

// File returns a sink that appends to the file at path, which it creates if
// needed.
func File(path string) (Sink, error) {
	fd, err := openLog(path)
	if err != nil {
		return nil, err
	}
	return &stream{path: path, fd: fd, kind: kindOf(fd)}, nil
}

// openLog opens a log file. O_NONBLOCK keeps a FIFO without a reader from
// blocking the agent; regular files do not mind.
func openLog(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0o666)
	if err != nil {
		return -1, fmt.Errorf("unable to open specified log file: %w", strerror.Reason(err))
	}
	return fd, nil
}

func kindOf(fd int) kind {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return plain
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return socket
	case unix.S_IFIFO, unix.S_IFCHR:
		return waiting
	}
	return plain
}

func (s *stream) Write(t time.Time, level Level, text []byte) bool {
	s.buf = s.buf[:0]
	if s.journal {
		s.buf = append(s.buf, '<', '0'+byte(level.severity()), '>')
	}
	s.buf = appendLine(s.buf, t, level, text)
	ok := s.writeAll(s.buf)
	s.stuck = !ok
	return ok
}

func (s *stream) writeAll(b []byte) bool {
	if s.kind == plain {
		return s.writeFile(b)
	}
	deadline := time.Now().Add(patience)
	if s.stuck {
		deadline = time.Time{}
	}
	for len(b) > 0 {
		if !writable(s.fd, deadline) {
			return false
		}
		var n int
		var err error
		if s.kind == socket {
			n, err = unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		} else {
			n, err = unix.Write(s.fd, b[:min(len(b), pipeBuf)])
		}
		switch {
		case err == nil:
			b = b[n:]
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN) && time.Now().Before(deadline):
		default:
			return false
		}
	}
	return true
}

// writeFile writes apart from the caller, as nothing ends a write to a file system
// that somebody has frozen but the thaw, which the caller may be about to do. A
// message that is late is written all the same; until then no others are taken.
func (s *stream) writeFile(b []byte) bool {
	select {
	case <-s.late:
		s.late = nil
	default:
		if s.late != nil {
			return false
		}
	}
	fd, b, done := s.fd, bytes.Clone(b), make(chan bool, 1)
	go func() {
		for len(b) > 0 {
			n, err := unix.Write(fd, b)
			if err != nil && err != unix.EINTR {
				break
			}
			b = b[max(n, 0):]
		}
		done <- len(b) == 0
	}()
	timer := time.NewTimer(filePatience)
	defer timer.Stop()
	select {
	case ok := <-done:
		return ok
	case <-timer.C:
		s.late = done
		return true
	}
}

// writable waits until the deadline for a write to fd not to block.
func writable(fd int, deadline time.Time) bool {
	for {
		wait := max(0, int(time.Until(deadline)/time.Millisecond))
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, wait)
		if err == nil {
			// Errors such as a closed pipe are for the write to find.
			return n > 0
		}
		if !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

func (s *stream) Reopen() error {
	if s.path == "" {
		return nil
	}
	type opened struct {
		fd  int
		err error
	}
	// A new file cannot be made on a file system that somebody has frozen.
	log, late := stuck.Do(filePatience, func() opened {
		fd, err := openLog(s.path)
		return opened{fd, err}
	}, func(log opened) {
		if log.err == nil {
			unix.Close(log.fd) //nolint:errcheck // it was not used
		}
	})
	if late != nil {
		log.err = fmt.Errorf("unable to open specified log file: %w", strerror.Reason(unix.ETIMEDOUT))
	}
	if log.err != nil {
		return log.err
	}
	go func(fd int, late chan bool) {
		if late != nil {
			<-late // a message is being written, and the number must not be another's
		}
		unix.Close(fd) //nolint:errcheck // the messages were written by then
	}(s.fd, s.late)
	s.fd, s.kind, s.stuck, s.late = log.fd, kindOf(log.fd), false, nil
	return nil
}

func (s *stream) Close() error {
	if s.path == "" {
		return nil // not ours
	}
	return unix.Close(s.fd)
}

// datagram is a sink of one datagram a message. Its socket is opened when it
// is needed, and again after an error, because the daemon at the other end may
// start later and start again.
type datagram struct {
	path   string
	encode func(b []byte, t time.Time, level Level, text []byte) []byte
	fd     int // -1 when there is none
	// absent is until when nobody is assumed to listen, as nobody did a moment
	// ago.
	absent time.Time
	buf    []byte
}

// absence is how long a daemon that was not there is not looked for again: on a
// system that has none, that would be most of what a short command costs.
const absence = 100 * time.Millisecond

// Syslog returns a sink that writes to the system's syslog daemon, with
// facility user.
func Syslog() Sink { return &datagram{path: syslogPath, encode: appendSyslog, fd: -1} }

// Journal returns a sink that writes to the systemd journal.
func Journal() Sink {
	return &datagram{path: "/run/systemd/journal/socket", encode: appendJournal, fd: -1}
}

func (d *datagram) Write(t time.Time, level Level, text []byte) bool {
	d.buf = d.encode(d.buf[:0], t, level, text)
	for range 2 {
		fresh := d.fd < 0
		if fresh && !d.connect() {
			return false
		}
		_, err := unix.SendmsgN(d.fd, d.buf, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == nil {
			return true
		}
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EMSGSIZE) {
			return false
		}
		d.Close() //nolint:errcheck // there is nothing left in it
		if fresh {
			return false
		}
	}
	return false
}

func (d *datagram) connect() bool {
	if time.Now().Before(d.absent) {
		return false
	}
	// Not with SOCK_CLOEXEC, which macOS lacks.
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return false
	}
	if unix.Connect(fd, &unix.SockaddrUnix{Name: d.path}) != nil {
		unix.Close(fd) //nolint:errcheck // it was not used
		d.absent = time.Now().Add(absence)
		return false
	}
	d.fd = fd
	return true
}

func (d *datagram) Reopen() error {
	d.absent = time.Time{}
	return d.Close()
}

func (d *datagram) Close() error {
	if d.fd < 0 {
		return nil
	}
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// zone is about the system's time zone.
var zone struct {
	find  sync.Once
	known atomic.Bool
}

// local returns t in the system's time zone. Package time looks into a file for
// that, which may be a pipe or on a server that is gone, and a log must not wait
// for it: where it takes too long, the time is in UTC.
func local(t time.Time) time.Time {
	zone.find.Do(func() {
		done := make(chan struct{})
		go func() {
			_, _ = time.Now().Local().Zone()
			zone.known.Store(true)
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(patience):
		}
	})
	if !zone.known.Load() {
		return t.UTC()
	}
	return t.Local()
}

// facilityUser is syslog's facility of user programs, as in a priority.
const facilityUser = 1 << 3

// appendSyslog appends a message as syslog(3) sends it, with the level before
// the text as in the C agent.
func appendSyslog(b []byte, t time.Time, level Level, text []byte) []byte {
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(facilityUser|level.severity()), 10)
	b = append(b, '>')
	b = local(t).AppendFormat(b, time.Stamp)
	b = append(b, " "+ident+": "...)
	b = append(b, level.String()...)
	b = append(b, ": "...)
	return append(b, text...)
}

// appendJournal appends a message in the journal's native format. Its fields
// end with the line, for which a value with line feeds would need the binary
// form; text has none, being escaped. The journal takes its own time, so a
// message that was held has its real one in SYSLOG_TIMESTAMP.
func appendJournal(b []byte, t time.Time, level Level, text []byte) []byte {
	b = append(b, "MESSAGE="...)
	b = append(b, text...)
	b = append(b, "\nPRIORITY="...)
	b = strconv.AppendInt(b, int64(level.severity()), 10)
	b = append(b, "\nSYSLOG_IDENTIFIER="+ident+"\nSYSLOG_TIMESTAMP="...)
	b = local(t).AppendFormat(b, time.Stamp)
	return append(b, '\n')
}
