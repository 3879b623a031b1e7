package freeze

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/mounts"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/resident"
	"github.com/bellhop-vm/bellhop/internal/state"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
)

const (
	// openLimit is how long the opening of one mount point may take.
	openLimit = 5 * time.Second
	// thawLimit is how long is waited for one file system to thaw. It goes on
	// after that; the others must not wait for it.
	thawLimit = 10 * time.Second
	// markLimit is how long the state directory may take.
	markLimit = 5 * time.Second
	// slack is how much later than the watchdog the guard acts.
	slack = 2 * time.Second
	// syncs is how many file systems are written back at a time.
	syncs = 8
)

// Config says how to freeze.
type Config struct {
	// Root takes the place of the root directory, for the lists of mounts and
	// devices. The mount points themselves are not below it.
	Root root.Dir
	// StateDir has the mark that file systems are frozen.
	StateDir string
	// Timeout is how long a freeze may last once it is complete. 0 is for ever.
	Timeout time.Duration
	// MountLimit is how long the freeze of one file system may take, and Limit
	// that of all.
	MountLimit, Limit time.Duration
	// Exclude are patterns, as path.Match has them, of mount points to be left
	// alone. They must be well-formed.
	Exclude []string
	// Before and After, if not nil, are called before the first file system is
	// frozen and after the last one has thawed. They may write to disks.
	Before, After func(context.Context) error
	Log           *logging.Logger
}

// A Freezer freezes and thaws. It is safe for concurrent use.
type Freezer struct {
	Config
	kernel kernel
	// frozen says which commands may run. It is true from before the first file
	// system is frozen until after the last one has thawed.
	frozen atomic.Bool
	// due says whether the host believes that they are. It outlasts frozen when
	// somebody else was faster to thaw.
	due atomic.Bool
	// complete is the hold of a freeze that is complete and has not ended.
	complete atomic.Pointer[hold]

	mu   sync.Mutex // held during a freeze and during a thaw
	hold *hold      // nil unless this agent froze something
	// former is the guard of the freeze before, unless it has to stay.
	former *guard
	// slow are volumes with a system call that has not returned, and probes and
	// marks such calls about paths.
	slow   []*volume
	probes stuck.Calls[string, struct{}]
	marks  stuck.Calls[bool, struct{}]
}

// A hold is what there is between a freeze and its thaw.
type hold struct {
	volumes  []*volume // in the order of freezing
	frozen   []*volume // those of them that it froze
	guard    *guard
	watchdog *time.Timer
	ended    chan struct{} // closed when all is thawed
}

// New returns a Freezer. wasFrozen is whether the agent before this one left
// file systems frozen; then Resume has to follow.
func New(c Config, wasFrozen bool) *Freezer {
	f := &Freezer{Config: c, kernel: running}
	f.frozen.Store(wasFrozen)
	f.due.Store(wasFrozen)
	return f
}

// Frozen reports whether file systems are frozen. After this process had to stand still
// its guard may have thawed, and a request be there before that was seen: then it is
// given the time to be seen.
func (f *Freezer) Frozen() bool {
	if h := f.complete.Load(); h != nil && h.guard.hasThawed() {
		select {
		case <-h.ended:
		case <-time.After(time.Second):
		}
	}
	return f.frozen.Load()
}

// ThawDue reports whether a host has frozen file systems and not yet asked to
// thaw them, frozen or not.
func (f *Freezer) ThawDue() bool { return f.due.Load() }

// Commands returns the commands of this package.
func Commands(f *Freezer) []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.FSFreezeStatus, f.status),
		agent.Handle(qga.FSFreezeFreeze, func(ctx context.Context, _ qga.Empty) (int64, error) {
			return f.freeze(ctx, &qga.FSFreezeFreeze.Info, listed(nil))
		}),
		agent.Handle(qga.FSFreezeFreezeList, func(ctx context.Context, args qga.FSFreezeFreezeListArgs) (int64, error) {
			return f.freeze(ctx, &qga.FSFreezeFreezeList.Info, listed(args.Mountpoints))
		}),
		agent.Handle(qga.FSFreezeThaw, func(ctx context.Context, _ qga.Empty) (int64, error) {
			return f.thaw(ctx)
		}),
	}
}

// listed selects the file systems that have one of the mount points; nil is all.
func listed(wanted []string) func(mounts.Mount) bool {
	return func(m mounts.Mount) bool {
		return wanted == nil || slices.ContainsFunc(points(m), func(p string) bool { return slices.Contains(wanted, p) })
	}
}

func (f *Freezer) status(context.Context, qga.Empty) (qga.FreezeState, error) {
	if f.Frozen() {
		return qga.Frozen, nil
	}
	return qga.Thawed, nil
}

// freeze freezes what wanted selects and returns how many file systems it froze.
// In the end either that is more than none, and a hold is there, or nothing is
// frozen and the hooks have been told so.
func (f *Freezer) freeze(ctx context.Context, c *qga.Info, wanted func(mounts.Mount) bool) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen.Load() { // since the gate let us pass
		return 0, &qga.Error{
			Class: qga.CommandNotFound,
			Desc:  "Command " + c.Name + " has been disabled: the command is not allowed",
		}
	}
	f.Log.Auditf("guest-fsfreeze called")
	if f.Before != nil {
		if err := f.Before(ctx); err != nil {
			return 0, err
		}
	}
	n, err := f.freezeAll(ctx, wanted)
	if err == nil && n > 0 {
		return n, nil
	}
	return 0, errors.Join(err, f.after(ctx))
}

// freezeAll is freeze without the hooks.
func (f *Freezer) freezeAll(ctx context.Context, wanted func(mounts.Mount) bool) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.Limit, fmt.Errorf("all together take longer than %v", f.Limit))
	defer cancel()
	all, err := mounts.List(f.Root)
	if err != nil {
		return 0, err
	}
	volumes, err := f.openAll(ctx, inOrder(f.Root, freezable(all, f.Exclude, wanted)))
	if err == nil {
		err = f.syncAll(ctx, volumes)
	}
	if err != nil || len(volumes) == 0 {
		f.releaseAll(volumes)
		return 0, err
	}
	// A guard that was late to thaw the last freeze must not thaw this one.
	if f.former != nil {
		if err := f.former.awaitEnd(ctx); err != nil {
			f.releaseAll(volumes)
			return 0, fmt.Errorf("failed to end the guard of the freeze before: %w", err)
		}
	}
	// Up to here the guest works on, whatever happens.
	g, err := startGuard(volumes, f.Limit+slack)
	if err != nil {
		f.releaseAll(volumes)
		return 0, fmt.Errorf("failed to start the guard that would end the freeze: %w", err)
	}
	wasDue := f.due.Load()
	f.frozen.Store(true)
	f.due.Store(true)
	f.mark()
	f.Log.Hold()
	h := &hold{volumes: volumes, guard: g, ended: make(chan struct{})}
	f.hold = h
	// So that a thaw does not begin by reading from a disk, perhaps the very one
	// that does not answer.
	resident.Lock()

	for _, v := range volumes {
		var froze bool
		froze, err = f.freezeOne(ctx, v)
		if err != nil {
			err = fmt.Errorf("failed to freeze %s: %w", v.point, strerror.Reason(err))
			break
		}
		if froze {
			h.frozen = append(h.frozen, v)
		}
	}
	count := int64(len(h.frozen))
	if err == nil && count > 0 {
		err = f.watch(h)
	}
	if err == nil && count > 0 {
		err = context.Cause(ctx) // the guard may have thawed by then
	}
	if err != nil || count == 0 {
		// What somebody else has frozen is his, as there was no freeze.
		_, undoErr := f.end(h.frozen)
		f.due.Store(wasDue)
		return 0, errors.Join(err, undoErr)
	}
	return count, nil
}

func (f *Freezer) freezeOne(ctx context.Context, v *volume) (bool, error) {
	ctx, cancel := limited(ctx, f.MountLimit)
	defer cancel()
	return v.freeze(ctx, &f.kernel)
}

// watch sees to it that the freeze which is complete now comes to an end.
func (f *Freezer) watch(h *hold) error {
	limit := f.Timeout
	if limit > 0 {
		limit += slack
		h.watchdog = time.AfterFunc(f.Timeout, func() {
			f.expire(h, fmt.Sprintf("the freeze has lasted %v", f.Timeout))
		})
	}
	if err := h.guard.tell(after(limit)); err != nil {
		return fmt.Errorf("the guard of the freeze has ended: %w", err)
	}
	f.complete.Store(h)
	go func() {
		<-h.guard.over
		f.expire(h, "the guard of the freeze has thawed or is gone")
	}()
	return nil
}

// expire thaws a freeze that nobody asked to end, unless it has ended.
func (f *Freezer) expire(h *hold, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hold != h {
		return
	}
	f.Log.Errorf("%s: the file systems are thawed, and what was copied meanwhile may be inconsistent", why)
	if _, err := f.thawAll(context.Background()); err != nil {
		f.Log.Errorf("%v", err)
	}
}

// Resume thaws what the agent before this one left frozen. Unless it fails the
// state is thawed then.
func (f *Freezer) Resume() error {
	f.Log.Hold() // the log may be on one of them
	defer f.Log.Release()
	f.Log.Errorf("file systems were frozen when the agent before this one ended: they are thawed now, and what was copied meanwhile may be inconsistent")
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.thawAll(context.Background())
	return err
}

// Close thaws what is frozen.
func (f *Freezer) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hold == nil {
		return nil
	}
	f.Log.Warningf("the agent ends: the file systems are thawed")
	_, err := f.thawAll(context.Background())
	return err
}

func (f *Freezer) thaw(ctx context.Context) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.thawAll(ctx)
	f.due.Store(f.frozen.Load())
	f.Log.Auditf("guest-fsthaw called")
	return n, err
}

// thawAll thaws all file systems, also those that others froze, and returns how
// many there were. The first are those of this agent's freeze, which are open.
func (f *Freezer) thawAll(ctx context.Context) (int64, error) {
	all, err := mounts.List(f.Root)
	if err != nil && f.hold == nil {
		return 0, err
	}
	var volumes, others []*volume
	if f.hold != nil {
		volumes = slices.Clone(f.hold.volumes)
	}
	rest := slices.DeleteFunc(freezable(all, f.Exclude, listed(nil)), func(m mounts.Mount) bool {
		d := device{m.Major, m.Minor}
		return f.stuck(d) || slices.ContainsFunc(volumes, func(v *volume) bool { return v.device == d })
	})
	opening := context.Background()
	if len(volumes) > 0 { // which must not wait for long
		var cancel context.CancelFunc
		opening, cancel = limited(opening, openLimit)
		defer cancel()
	}
	for _, m := range inOrder(f.Root, rest) {
		// One that cannot be opened is dead, and must not hide the others.
		if v, err := f.openOne(opening, m); err == nil {
			others = append(others, v)
		}
	}
	defer f.releaseAll(others)
	n, err := f.end(append(others, volumes...))
	return n, errors.Join(err, f.after(ctx))
}

// end thaws volumes, the last one first, and ends the hold. It returns how many
// had been frozen; if not all of the hold were any more, only those that were, lest
// others that somebody else froze make up for them. One that does not thaw is the
// error, but does not keep the agent from serving: there is nothing more that it could
// do than try again.
func (f *Freezer) end(volumes []*volume) (n int64, err error) {
	held := 0
	inherited := f.hold == nil && f.frozen.Load() // from the agent before this one
	for _, v := range slices.Backward(volumes) {
		if v.busy() {
			continue // its freeze has not returned, and will be undone
		}
		was, thawErr := f.thawOne(v)
		ours := f.hold != nil && slices.Contains(f.hold.frozen, v)
		if was {
			n++
			if ours {
				held++
			}
		}
		if errors.Is(thawErr, unix.EPERM) && !ours && !inherited {
			continue // who may not even try did not freeze it either
		}
		if thawErr != nil {
			err = errors.Join(err, fmt.Errorf("failed to thaw %s: %w", v.point, strerror.Reason(thawErr)))
		}
	}
	h := f.hold
	f.hold = nil
	f.frozen.Store(false)
	f.complete.Store(nil)
	f.mark()
	if h == nil {
		return n, err
	}
	close(h.ended)
	if h.watchdog != nil {
		h.watchdog.Stop()
	}
	if count := len(h.frozen); held < count {
		f.Log.Errorf("%d of %d file systems had been thawed before: what was copied meanwhile may be inconsistent", count-held, count)
		n = int64(held)
	}
	f.releaseAll(h.volumes)
	resident.Unlock()
	f.Log.Release()
	if slices.ContainsFunc(h.volumes, (*volume).busy) {
		f.former = nil
		go h.guard.dismiss(h.volumes)
		return n, err
	}
	f.former = h.guard
	h.guard.dismiss(h.volumes)
	// Until it has ended nobody can unmount what it holds.
	ctx, cancel := context.WithTimeout(context.Background(), guardGone)
	defer cancel()
	if h.guard.awaitEnd(ctx) != nil {
		h.guard.kill() // or it would be in the way of the next freeze
	}
	return n, err
}

func (f *Freezer) thawOne(v *volume) (bool, error) {
	ctx, cancel := limited(context.Background(), thawLimit)
	defer cancel()
	return v.thaw(ctx, &f.kernel)
}

// after tells the hooks that all is thawed. They run to their end even if the
// client that asked for it has gone.
func (f *Freezer) after(ctx context.Context) error {
	if f.After == nil {
		return nil
	}
	return f.After(context.WithoutCancel(ctx))
}

// openAll opens the file systems that can be reached.
func (f *Freezer) openAll(ctx context.Context, list []mounts.Mount) ([]*volume, error) {
	volumes := make([]*volume, 0, len(list))
	for _, m := range list {
		v, err := f.openOne(ctx, m)
		switch {
		case errors.Is(err, errElsewhere):
			f.Log.Errorf("%s is not frozen: %v", m.Point, err)
			continue
		case err == nil:
			volumes = append(volumes, v)
		default:
			return volumes, fmt.Errorf("failed to open %s: %w", m.Point, strerror.Reason(err))
		}
	}
	return volumes, nil
}

func (f *Freezer) openOne(ctx context.Context, m mounts.Mount) (*volume, error) {
	ctx, cancel := limited(ctx, openLimit)
	defer cancel()
	return f.open(ctx, m)
}

// open opens a file system unless that takes longer than ctx.
func (f *Freezer) open(ctx context.Context, m mounts.Mount) (*volume, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	// The first call only finds out whether there is an answer, so that one that does
	// not answer holds one thread, however often it is asked.
	deadline, _ := ctx.Deadline()
	_, err := f.probes.Do(m.Point, time.Until(deadline), func() (struct{}, error) {
		v, err := openVolume(m, &f.kernel)
		if err == nil {
			v.release()
		}
		return struct{}{}, err
	})
	if err != nil {
		return nil, err
	}
	type opened struct {
		v   *volume
		err error
	}
	o, err := stuck.Do(time.Until(deadline), func() opened {
		v, err := openVolume(m, &f.kernel)
		return opened{v, err}
	}, func(late opened) {
		if late.err == nil {
			late.v.release()
		}
	})
	if err != nil {
		return nil, err
	}
	return o.v, o.err
}

// syncAll has the file systems write back what they hold, several at a time. It
// is what takes long in a freeze, and it finds out which disks do not answer,
// while nothing is frozen yet.
func (f *Freezer) syncAll(ctx context.Context, volumes []*volume) error {
	var (
		group  sync.WaitGroup
		places = make(chan struct{}, syncs)
		failed = make(chan error, len(volumes))
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, v := range volumes {
		if f.stuck(v.device) {
			failed <- fmt.Errorf("failed to freeze %s: an earlier call has not returned", v.point)
			break
		}
		places <- struct{}{}
		if ctx.Err() != nil { // those under way are enough to have to wait for
			break
		}
		group.Go(func() {
			defer func() { <-places }()
			limit, stop := limited(ctx, f.MountLimit)
			defer stop()
			err := v.call(limit, f.kernel.sync, nil)
			if err != nil && limit.Err() != nil { // what else is wrong the freeze tells
				failed <- fmt.Errorf("failed to freeze %s: %w", v.point, err)
				cancel()
			}
		})
	}
	group.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	return context.Cause(ctx)
}

// stuck reports whether a call on a file system has not returned yet. Another one
// would not, either, and hold one more thread.
func (f *Freezer) stuck(d device) bool {
	f.slow = slices.DeleteFunc(f.slow, func(v *volume) bool { return !v.busy() })
	return slices.ContainsFunc(f.slow, func(v *volume) bool { return v.device == d })
}

func (f *Freezer) releaseAll(volumes []*volume) {
	for _, v := range volumes {
		if v.release(); v.busy() {
			f.slow = append(f.slow, v)
		}
	}
}

// mark notes down for the next agent whether file systems are frozen. What goes
// wrong there is no reason not to freeze: the guard outlives this agent.
func (f *Freezer) mark() {
	frozen := f.frozen.Load()
	_, err := f.marks.Do(frozen, markLimit, func() (struct{}, error) {
		for noted := frozen; ; noted = !noted {
			err := state.SetFrozen(f.StateDir, noted)
			// One that was slow may come last, but must not have the last word.
			if err != nil || f.frozen.Load() == noted {
				return struct{}{}, err
			}
		}
	})
	if err != nil {
		f.Log.Warningf("cannot note that file systems are %s: %v", map[bool]string{true: "frozen", false: "thawed"}[frozen], err)
	}
}
