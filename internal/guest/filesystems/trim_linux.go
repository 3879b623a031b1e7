package filesystems

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/mounts"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
)

// Trimming a large disk may take any time, and nothing can stop it. The command
// answers shortly before Proxmox VE gives up on it, which is after ten minutes;
// others wait for longer, or for ever. The trimming itself goes on, to the last
// file system, but not on one that does not answer.
const (
	trimReply = 9 * time.Minute
	trimEach  = time.Hour
)

// unfinished is what a reply says of a file system whose turn is not over.
const unfinished = "failed to trim: not done yet, continues in the background"

// A trimmer tells disks which blocks are unused.
type trimmer struct {
	root   root.Dir
	open   func(path string) (*os.File, error)
	fitrim func(*os.File, *fstrimRange) error
	reply  time.Duration
	audit  func(format string, args ...any)

	opens stuck.Calls[mountKey, *os.File]
	trims stuck.Calls[mountKey, fstrimRange]

	mu      sync.Mutex
	current *round // nil if nothing is being trimmed
}

// A round is what one request started.
type round struct {
	done chan struct{}

	mu    sync.Mutex
	paths []qga.TrimmedPath // in the order of mounting
}

// fstrimRange is the kernel's struct fstrim_range. Its length and minimum are
// in bytes; afterwards they are what was discarded, and what was applied.
type fstrimRange struct{ start, length, minimum uint64 }

func newTrimmer(s System) *trimmer {
	return &trimmer{root: s.Root, open: os.Open, fitrim: fitrim, reply: trimReply, audit: s.Audit}
}

// fstrim trims all file systems and lists the latest mount first, as the
// C agent does. Whoever asks while that is going on gets its outcome.
func (t *trimmer) fstrim(ctx context.Context, args qga.FSTrimArgs) (qga.FSTrimResult, error) {
	if t.audit != nil {
		t.audit("guest-fstrim called")
	}
	var minimum int64
	if args.Minimum != nil {
		minimum = *args.Minimum
	}
	r, err := t.start(uint64(minimum))
	if err != nil {
		return qga.FSTrimResult{}, err
	}
	timer := time.NewTimer(t.reply)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
	case <-ctx.Done():
		return qga.FSTrimResult{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	paths := slices.Clone(r.paths)
	slices.Reverse(paths)
	return qga.FSTrimResult{Paths: paths}, nil
}

// start starts a round unless there is one.
func (t *trimmer) start(minimum uint64) (*round, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil {
		return t.current, nil
	}
	mounted, err := mounts.List(t.root)
	if err != nil {
		return nil, err
	}
	r := &round{done: make(chan struct{}), paths: make([]qga.TrimmedPath, len(mounted))}
	for i, m := range mounted {
		r.paths[i] = qga.TrimmedPath{Path: m.Point, Error: new(unfinished)}
	}
	t.current = r
	go func() {
		for i, m := range mounted {
			p := t.trim(m, minimum)
			r.mu.Lock()
			r.paths[i] = p
			r.mu.Unlock()
		}
		t.mu.Lock()
		t.current = nil
		t.mu.Unlock()
		close(r.done)
	}()
	return r, nil
}

// trim trims one file system.
func (t *trimmer) trim(m mounts.Mount, minimum uint64) qga.TrimmedPath {
	failed := func(text string) qga.TrimmedPath {
		return qga.TrimmedPath{Path: m.Point, Error: &text}
	}
	key := mountKey{m.Major, m.Minor, m.Point}
	// A file that nobody trims, because it was opened too late or the call before
	// never returned, is closed by the garbage collector.
	f, err := t.opens.Do(key, patience, func() (*os.File, error) { return t.open(t.root.Path(m.Point)) })
	if err != nil {
		return failed("failed to open: " + strerror.Text(err))
	}
	done, err := t.trims.Do(key, trimEach, func() (fstrimRange, error) {
		defer f.Close()
		r := fstrimRange{length: ^uint64(0), minimum: minimum}
		err := t.fitrim(f, &r)
		return r, err
	})
	switch err {
	case nil:
		return qga.TrimmedPath{Path: m.Point, Trimmed: new(int64(done.length)), Minimum: new(int64(done.minimum))}
	case unix.ENOTTY, unix.EOPNOTSUPP:
		return failed("trim not supported")
	}
	return failed("failed to trim: " + strerror.Text(err))
}

// fitrim is the ioctl(2), whose number is the same on all architectures.
func fitrim(f *os.File, r *fstrimRange) error {
	const FITRIM = 0xc0185879
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), FITRIM, uintptr(unsafe.Pointer(r)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
