package freeze

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/mounts"
)

// The ioctls of a mounted file system, linux/fs.h: _IOWR('X', 119 and 120, int).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// errElsewhere is the error of a mount that no path leads to, because something
// else is mounted on it.
var errElsewhere = errors.New("hidden by another mount")

// device is the number of a block device.
type device struct{ major, minor uint32 }

// A volume is a file system that is held open, so that it can be thawed whatever
// becomes of its mount point, and cannot be unmounted while it is frozen.
type volume struct {
	point  string
	device device
	fd     int

	mu       sync.Mutex
	calls    int // under way; they need the descriptor
	released bool
}

// openVolume opens a file system by the first of its mount points that leads
// there. Nothing that may be mounted there makes it wait, but a file system that
// is dead.
func openVolume(m mounts.Mount, k *kernel) (*volume, error) {
	var first error
	for i := -1; i < len(m.Others); i++ {
		point := m.Point
		if i >= 0 {
			point = m.Others[i]
		}
		fd, err := k.open(point)
		if err == nil {
			var same bool
			if same, err = leadsTo(fd, m); same {
				return &volume{point: m.Point, device: device{m.Major, m.Minor}, fd: fd}, nil
			}
			unix.Close(fd)
		}
		if err == unix.ENOENT || err == unix.ENOTDIR {
			err = nil // something is mounted on a directory of the path
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = errElsewhere
	}
	return nil, first
}

func open(point string) (int, error) {
	for {
		fd, err := unix.Open(point, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// leadsTo reports whether a descriptor is one of the file system m.
func leadsTo(fd int, m mounts.Mount) (bool, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return false, err
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFREG:
	default:
		return false, nil // a device node would answer for itself
	}
	if m.Major == 0 {
		return true, nil // the number is not known
	}
	if m.Type == "btrfs" {
		// Its files have numbers that no device has.
		var fs unix.Statfs_t
		err := unix.Fstatfs(fd, &fs)
		return uint32(fs.Type) == unix.BTRFS_SUPER_MAGIC, err
	}
	dev := uint64(stat.Dev)
	return unix.Major(dev) == m.Major && unix.Minor(dev) == m.Minor, nil
}

// release closes the volume, as soon as no call needs it any more.
func (v *volume) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.released = true
	v.closeUnused()
}

// busy reports whether a call has not returned yet.
func (v *volume) busy() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.calls > 0
}

func (v *volume) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls++
}

func (v *volume) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls--
	v.closeUnused()
}

func (v *volume) closeUnused() {
	if v.released && v.calls == 0 {
		unix.Close(v.fd)
	}
}

// call makes a system call on the file system. It does not wait for it any more
// when ctx is done, whose cause is the error then. If the call succeeds after
// that, undo, if not nil, is called.
func (v *volume) call(ctx context.Context, fn, undo func(fd int) error) error {
	v.begin()
	done := make(chan error)
	go func() {
		err := fn(v.fd)
		select {
		case done <- err:
		case <-ctx.Done():
			if err == nil && undo != nil {
				_ = undo(v.fd) // nobody is left to be told
			}
			v.end()
		}
	}()
	select {
	case err := <-done:
		v.end()
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// limited returns a context for system calls that may take as long as limit.
func limited(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("no end after %v", limit))
}

// freeze freezes the file system. It is false if that is nothing for it to be:
// its format knows no freeze, or somebody else froze it before. A freeze that
// succeeds when it is no longer waited for is undone.
func (v *volume) freeze(ctx context.Context, k *kernel) (bool, error) {
	err := v.call(ctx, k.freeze, func(fd int) error {
		_, err := thaw(k, fd)
		return err
	})
	switch {
	case errors.Is(err, unix.EBUSY) || unsupported(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}

// thaw thaws the file system and reports whether it was frozen.
func (v *volume) thaw(ctx context.Context, k *kernel) (bool, error) {
	thawed := make(chan bool, 1)
	err := v.call(ctx, func(fd int) error {
		was, err := thaw(k, fd)
		thawed <- was
		return err
	}, nil)
	select {
	case was := <-thawed:
		return was, err
	default:
		return false, err
	}
}

// thaw undoes all freezes of a file system, however many there are.
func thaw(k *kernel, fd int) (was bool, err error) {
	for {
		err := k.thaw(fd)
		switch {
		case err == nil:
			was = true
		case errors.Is(err, unix.EINVAL) || unsupported(err):
			return was, nil // it is not frozen
		default:
			return was, err
		}
	}
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY)
}

// A kernel is the system calls that a freeze is made of, any of which may hang.
type kernel struct {
	open               func(point string) (fd int, err error)
	sync, freeze, thaw func(fd int) error
}

var running = kernel{
	open:   open,
	sync:   unix.Syncfs,
	freeze: func(fd int) error { return ioctl(fd, fiFreeze) },
	thaw:   func(fd int) error { return ioctl(fd, fiThaw) },
}

func ioctl(fd int, request uint) error {
	for {
		if err := unix.IoctlSetInt(fd, request, 0); err != unix.EINTR {
			return err
		}
	}
}
