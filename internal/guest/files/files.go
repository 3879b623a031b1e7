//go:build unix

package files

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
)

// DefaultMaxOpen is how many files are open at a time unless configured. It is
// what systemd's usual limit of 1024 descriptors would leave to the C agent.
const DefaultMaxOpen = 1000

// How many calls, each of which holds a thread, may take too long at once, and how
// many bytes of their requests they may hold. Then there are no more until some
// return: a host that tries again and again must not use up the guest.
const maxLate, maxLent = 64, 128 << 20

// Handles makes file handles. No handle is ever returned twice.
type Handles interface {
	NextHandle() (int64, error)
}

// Config is what a Table needs.
type Config struct {
	Handles Handles
	// MaxOpen is how many files may be open at a time; zero stands for
	// DefaultMaxOpen. It is never more than half of the process's limit on
	// descriptors, or an agent that is out of them could not even be told to
	// close some.
	MaxOpen int
	// Audit records what was opened and closed. Nil records nothing.
	Audit func(format string, args ...any)
}

// A Table holds the open files. It is safe for concurrent use.
type Table struct {
	handles Handles
	audit   func(format string, args ...any)
	max     int
	scratch scratch
	// limit is how long a system call may take. One that writes may take three
	// times as long: the largest write is a lot for a slow disk.
	limit time.Duration
	// late is how many calls have not returned in that time, and lent how many bytes
	// of requests are in use by them.
	late, lent atomic.Int64

	mu     sync.Mutex
	files  map[qga.Handle]*file
	places int // taken, also by files that are being opened or closed
}

// New returns a Table without any files.
func New(c Config) *Table {
	t := &Table{handles: c.Handles, audit: c.Audit, max: c.MaxOpen, files: map[qga.Handle]*file{}, limit: stuck.DiskLimit}
	if t.max <= 0 {
		t.max = DefaultMaxOpen
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		t.max = int(min(uint64(t.max), uint64(limit.Cur)/2))
	}
	if t.audit == nil {
		t.audit = func(string, ...any) {}
	}
	return t
}

// Commands returns the commands on the files of t.
func Commands(t *Table) []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.FileOpen, t.open),
		agent.Handle(qga.FileClose, t.close),
		agent.HandleStream(qga.FileRead, t.read),
		agent.Handle(qga.FileWrite, t.write),
		agent.Handle(qga.FileSeek, t.seek),
		agent.Handle(qga.FileFlush, t.flush),
	}
}

func (t *Table) open(_ context.Context, args qga.FileOpenArgs) (qga.Handle, error) {
	mode := "r"
	if args.Mode != nil {
		mode = *args.Mode
	}
	t.audit("guest-file-open called, filepath: %s, mode: %s", args.Path, mode)

	if err := t.takePlace(); err != nil {
		return 0, openFailed(args.Path, mode, err)
	}
	if t.late.Load() >= maxLate {
		t.returnPlace()
		return 0, openFailed(args.Path, mode, unix.ETIMEDOUT)
	}
	opened, late := stuck.Do(t.limit, func() result {
		fd, err := open(args.Path, mode)
		return result{int64(fd), err}
	}, func(opened result) {
		if opened.err == nil {
			unix.Close(int(opened.n))
		}
		t.returnPlace()
		t.late.Add(-1)
	})
	if late != nil {
		t.late.Add(1)
		return 0, openFailed(args.Path, mode, unix.ETIMEDOUT)
	}
	if opened.err != nil {
		t.returnPlace()
		return 0, opened.err
	}
	fd := int(opened.n)
	n, err := t.handles.NextHandle()
	if err != nil {
		unix.Close(fd)
		t.returnPlace()
		return 0, err
	}
	handle := qga.Handle(n)
	t.mu.Lock()
	t.files[handle] = &file{fd: fd, handle: handle, turn: make(chan struct{}, 1)}
	t.mu.Unlock()
	t.audit("guest-file-open, handle: %d", handle)
	return handle, nil
}

// takePlace fails as the kernel does when there are too many files.
func (t *Table) takePlace() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.places >= t.max {
		return unix.EMFILE
	}
	t.places++
	return nil
}

func (t *Table) returnPlace() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.places--
}

// find returns the file of a handle.
func (t *Table) find(h qga.Handle) (*file, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[h]
	if f == nil {
		return nil, notFound(h)
	}
	return f, nil
}

// close forgets the handle in any case: after a failed close(2) the descriptor
// is gone as well.
//
// A read whose client is slow to take its reply may keep the file for as long
// as it likes. close does not wait for that: the file is closed after it.
func (t *Table) close(ctx context.Context, args qga.HandleArgs) (qga.Empty, error) {
	t.audit("guest-file-close called, handle: %d", args.Handle)
	t.mu.Lock()
	f := t.files[args.Handle]
	delete(t.files, args.Handle)
	t.mu.Unlock()
	if f == nil {
		return qga.Empty{}, notFound(args.Handle)
	}
	if f.acquire(ctx) != nil {
		go func() {
			f.turn <- struct{}{}
			_ = t.finish(f) // nobody is left to be told
		}()
		return qga.Empty{}, nil
	}
	// A server may be sent now what was written.
	err, late := stuck.Do(3*t.limit, func() error { return t.finish(f) }, func(error) { t.late.Add(-1) })
	if late != nil {
		t.late.Add(1)
		err = unix.ETIMEDOUT
	}
	if err != nil {
		return qga.Empty{}, fmt.Errorf("failed to close handle: %s", strerror.Text(err))
	}
	return qga.Empty{}, nil
}

// finish closes a file that has been acquired.
func (t *Table) finish(f *file) error {
	defer t.returnPlace()
	defer f.release()
	f.closed = true
	return unix.Close(f.fd)
}

func (t *Table) seek(ctx context.Context, args qga.FileSeekArgs) (qga.FileSeekResult, error) {
	f, err := t.find(args.Handle)
	if err != nil {
		return qga.FileSeekResult{}, err
	}
	var whence int
	switch args.Whence {
	case qga.SeekSet:
		whence = unix.SEEK_SET
	case qga.SeekCur:
		whence = unix.SEEK_CUR
	case qga.SeekEnd:
		whence = unix.SEEK_END
	default:
		return qga.FileSeekResult{}, fmt.Errorf("invalid whence code %d", args.Whence)
	}
	if err := f.acquire(ctx); err != nil {
		return qga.FileSeekResult{}, err
	}
	position, late, err := t.call(f, t.limit, func() (int64, error) { return f.seek(args.Offset, whence) }, func() {})
	if !late {
		f.release()
	}
	if err != nil {
		return qga.FileSeekResult{}, fmt.Errorf("failed to seek file: %s", strerror.Text(err))
	}
	return qga.FileSeekResult{Position: position}, nil
}

// flush has nothing to do, as no data are held back. It is fflush, not fsync:
// it promises nothing about the disk.
func (t *Table) flush(_ context.Context, args qga.HandleArgs) (qga.Empty, error) {
	_, err := t.find(args.Handle)
	return qga.Empty{}, err
}

// write writes all or fails, as the C agent does, because clients exist that
// do not look at the count: an error that cut a write short is reported even
// when something was written, and the position tells how much. But what a FIFO
// or a terminal has no room for at the moment is no error when it took a part:
// there the count is the only way to tell.
func (t *Table) write(ctx context.Context, args qga.FileWriteArgs) (qga.FileWriteResult, error) {
	f, err := t.find(args.Handle)
	if err != nil {
		return qga.FileWriteResult{}, err
	}
	data := args.Data
	if args.Count != nil {
		if *args.Count < 0 || *args.Count > int64(len(data)) {
			return qga.FileWriteResult{}, invalidCount(*args.Count)
		}
		data = data[:*args.Count]
	}
	if err := f.acquire(ctx); err != nil {
		return qga.FileWriteResult{}, err
	}
	var n int64
	var late bool
	written := make(chan struct{})
	size := int64(len(data))
	if t.lent.Load()+size > maxLent {
		err = unix.ETIMEDOUT
	} else {
		n, late, err = t.call(f, 3*t.limit, func() (int64, error) { return f.write(data) }, func() {
			close(written)
			t.lent.Add(-size)
		})
	}
	if late {
		t.lent.Add(size)
	} else {
		f.release()
	}
	if err != nil && (n == 0 || err != unix.EAGAIN) {
		err = fmt.Errorf("failed to write to file: %s", strerror.Text(err))
		if late {
			err = &agent.InUse{Err: err, Until: written}
		}
		return qga.FileWriteResult{}, err
	}
	return qga.FileWriteResult{Count: n}, nil
}

// A result is what a system call returns.
type result struct {
	n   int64
	err error
}

// call makes a system call on a file that has been acquired. One that takes too long
// is ETIMEDOUT, and late: then the file is released when it returns, and after is
// called. In all other cases it is for the caller to release the file.
func (t *Table) call(f *file, limit time.Duration, fn func() (int64, error), after func()) (n int64, late bool, err error) {
	if t.late.Load() >= maxLate {
		return 0, false, unix.ETIMEDOUT
	}
	r, stuckErr := stuck.Do(limit, func() result {
		n, err := fn()
		return result{n, err}
	}, func(result) {
		f.release()
		t.late.Add(-1)
		after()
	})
	if stuckErr != nil {
		t.late.Add(1)
		return 0, true, unix.ETIMEDOUT
	}
	return r.n, false, r.err
}

func invalidCount(n int64) error {
	return fmt.Errorf("value '%d' is invalid for argument count", n)
}

func notFound(h qga.Handle) error {
	return fmt.Errorf("handle '%d' has not been found", h)
}
