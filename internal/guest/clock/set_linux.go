package clock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/qga"
)

// Commands returns the commands of this package.
func Commands() []agent.Handler {
	s := &setter{kernel: system{}, run: run.Run}
	return []agent.Handler{
		agent.Handle(qga.GetTime, getTime),
		agent.Handle(qga.SetTime, s.setTime),
	}
}

// A kernel has the clocks.
type kernel interface {
	// now and set are about the system's clock.
	now() time.Time
	set(time.Time) error
	// openRTC opens the hardware clock.
	openRTC() (rtc, error)
}

// An rtc is a hardware clock. It knows neither time zones nor parts of seconds:
// what it shows is given and taken as if it were UTC.
type rtc interface {
	read() (time.Time, error)
	set(time.Time) error
	// lead is how far into the second that it is set to the clock begins: half
	// of it with a PC's, nothing with most others.
	lead() time.Duration
	close()
}

// A setter sets the clocks.
type setter struct {
	kernel kernel
	root   root.Dir // in place of the root directory
	run    run.Func

	// mu is held while clocks are set, because it takes up to a second, and two
	// at once would leave them apart.
	mu sync.Mutex
}

func (s *setter) setTime(ctx context.Context, args qga.SetTimeArgs) (qga.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if args.Time == nil {
		return qga.Empty{}, s.fromHardware(ctx)
	}
	t, err := checked(*args.Time, s.zone())
	if err != nil {
		return qga.Empty{}, err
	}
	if err := s.kernel.set(t); err != nil {
		return qga.Empty{}, qga.Failure("Failed to set time to guest: " + strerror.Text(err))
	}
	return qga.Empty{}, s.toHardware(ctx)
}

// checked returns a time given in nanoseconds, if its year in the guest's zone is
// one that a PC's hardware clock has, with two digits for it: 1970 to 2069.
func checked(nanoseconds int64, zone *time.Location) (time.Time, error) {
	// Rounded towards 1970, as in C: of the last second before it the kernel is
	// asked what it thinks.
	seconds := nanoseconds / int64(time.Second)
	micros := nanoseconds % int64(time.Second) / int64(time.Microsecond)
	if year := time.Unix(seconds, 0).In(zone).Year(); year < 1970 || year > 2069 {
		return time.Time{}, qga.Failure("Invalid time")
	}
	return time.Unix(seconds, micros*int64(time.Microsecond)), nil
}

// action is what the C agent says that it does, in either direction.
const action = "set hardware clock to system time"

func (s *setter) toHardware(ctx context.Context) error {
	return s.withHardware(ctx, "-w", func(c rtc, zone *time.Location) error {
		// At which part of its second the clock begins is not ours to choose,
		// so it is set when ours is there.
		now := s.kernel.now()
		at := now.Truncate(time.Second).Add(c.lead())
		if at.Before(now) {
			at = at.Add(time.Second)
		}
		if err := sleep(ctx, at.Sub(now)); err != nil {
			return err
		}
		second := s.kernel.now().Add(-c.lead()).Round(time.Second)
		return c.set(shown(second.In(zone)))
	})
}

func (s *setter) fromHardware(ctx context.Context) error {
	return s.withHardware(ctx, "-s", func(c rtc, zone *time.Location) error {
		t, err := tick(ctx, c)
		if err != nil {
			return err
		}
		return s.kernel.set(meant(t, zone))
	})
}

// withHardware has fn do it with the hardware clock and the time zone in which
// it goes. What that cannot do is left to hwclock; so is a clock that drifts, as
// hwclock corrects what it reads and has to know when the clock was set.
func (s *setter) withHardware(ctx context.Context, direction string, fn func(rtc, *time.Location) error) error {
	a, zone := s.adjtime()
	if a.drifts {
		if err := s.byProgram(ctx, direction); !absent(err) {
			return err
		}
	}
	err := s.byDevice(zone, fn)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if err := s.byProgram(ctx, direction); !absent(err) {
		return err
	}
	// That there is no hwclock is not what is wrong.
	return fmt.Errorf("failed to %s: %w", action, strerror.Reason(err))
}

func (s *setter) byProgram(ctx context.Context, direction string) error {
	_, err := s.run(ctx, run.Command{Args: []string{"/sbin/hwclock", direction}, Action: action})
	return err
}

// absent reports whether err says that there is no program.
func absent(err error) bool {
	_, ok := errors.AsType[*run.StartError](err)
	return ok
}

func (s *setter) byDevice(zone *time.Location, fn func(rtc, *time.Location) error) error {
	c, err := s.kernel.openRTC()
	if err != nil {
		return err
	}
	defer c.close()
	return fn(c, zone)
}

// adjtime returns how the hardware clock is kept, and its time zone.
func (s *setter) adjtime() (adjtime, *time.Location) {
	var a adjtime
	if text, err := s.root.ReadDiskFile("/etc/adjtime"); err == nil {
		a = parseAdjtime(string(text))
	}
	if !a.local {
		return a, time.UTC
	}
	return a, s.zone()
}

// zone returns the guest's time zone. Package time looks it up only once, and
// it may have changed since.
func (s *setter) zone() *time.Location {
	data, err := s.root.ReadDiskFile("/etc/localtime")
	if err != nil {
		return time.UTC
	}
	zone, err := time.LoadLocationFromTZData("", data)
	if err != nil {
		return time.UTC
	}
	return zone
}

// shown returns what a clock without a time zone shows at t, as if it were UTC.
func shown(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// meant returns the time at which a clock in a zone shows t.
func meant(t time.Time, zone *time.Location) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, zone)
}

// tick waits until the clock takes for the next second, and returns it: when a
// second begins is all that the clock tells about parts of it.
func tick(ctx context.Context, c rtc) (time.Time, error) {
	const (
		pause    = 5 * time.Millisecond
		patience = 2 * time.Second
	)
	first, err := c.read()
	if err != nil {
		return time.Time{}, err
	}
	for began := time.Now(); time.Since(began) < patience; {
		if err := sleep(ctx, pause); err != nil {
			return time.Time{}, err
		}
		t, err := c.read()
		if err != nil || !t.Equal(first) {
			return t, err
		}
	}
	return time.Time{}, errStopped
}

// errStopped is a hardware clock that shows the same time always.
var errStopped = errors.New("the hardware clock stands still")

// sleep waits, but not when ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
