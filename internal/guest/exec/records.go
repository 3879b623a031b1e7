//go:build unix

package exec

import (
	"container/list"
	"fmt"
	"sync"
	"time"
)

// limits bound what is kept. A host that asks in time notices none of them.
type limits struct {
	maxRecords  int
	maxOutput   int
	maxReported int
	maxInput    int
	maxDraining int
	seenFor     time.Duration
	unseenFor   time.Duration
}

// What Config stands for where it says nothing.
const (
	DefaultLifetime   = 10 * time.Minute
	DefaultMaxRecords = 1024
	DefaultMaxOutput  = 128 << 20
)

// limitsOf returns the limits that c asks for.
func limitsOf(c Config) limits {
	l := defaultLimits
	if c.Lifetime != nil {
		l.seenFor = *c.Lifetime
	}
	if c.MaxRecords > 0 {
		l.maxRecords = c.MaxRecords
	}
	if c.MaxOutput > 0 {
		l.maxOutput = c.MaxOutput
		l.maxReported = min(l.maxReported, c.MaxOutput)
	}
	return l
}

var defaultLimits = limits{
	// How many programs are running or remembered. The descriptors of so many
	// running ones, up to four each, are a fraction of what a process may have.
	maxRecords: DefaultMaxRecords,
	// How many bytes of output are kept: of four programs that print as much
	// as the protocol lets them.
	maxOutput: DefaultMaxOutput,
	// How many of these bytes the host has seen already: one full stream, in
	// case that a reply got lost. The latest report is kept in any case.
	maxReported: streamMax,
	// How many bytes of input wait for programs to read them, unless it is
	// a single program that has more.
	maxInput: 64 << 20,
	// How many streams are read for the sake of those who write to them only.
	maxDraining: 64,
	// How long after its first report an outcome is kept. A host that lost
	// the reply asks again after seconds or, if the guest was moved or
	// suspended meanwhile, minutes.
	seenFor: DefaultLifetime,
	// How long an outcome is kept that nobody asks for: a bit longer than
	// a day, for hosts that look after their jobs daily.
	unseenFor: 25 * time.Hour,
}

// A record is a program, running or not.
type record struct {
	pid  int64
	held int // bytes reserved for output
	// orphan is a program whose number was given to another one while its
	// output was still waited for.
	orphan bool
	done   bool // the outcome is complete
	outcome
	since    time.Time     // when it was done or, after the first report, reported
	reported bool          // in seen, not in unseen
	element  *list.Element // there, once done
}

// records are what Processes remember. All methods want Processes.mu held.
type records struct {
	limits
	mu           *sync.Mutex // that one, for the timer
	byPID        map[int64]*record
	places       int // taken: by records, and by programs that are being started
	held         int // bytes of output, of all records
	heldReported int // and of those that have been reported

	// The outcomes, the oldest first.
	unseen, seen list.List

	// One timer waits for the first outcome to be forgotten. There is none
	// while there are none.
	timer *time.Timer
	due   time.Time
}

// takePlace takes a place for a program that is to be started, if need be that
// of one that is gone.
func (rs *records) takePlace() error {
	if rs.places >= rs.maxRecords {
		switch {
		case rs.seen.Len() > 0:
			rs.forget(oldest(&rs.seen))
		case rs.unseen.Len() > 0:
			rs.forget(oldest(&rs.unseen))
		default:
			return fmt.Errorf("too many programs are running: %d", rs.places)
		}
	}
	rs.places++
	return nil
}

func oldest(l *list.List) *record { return l.Front().Value.(*record) }

// insert adds a program that has been started in a place taken for it. The
// system uses the number of a program that is gone again; then nobody can ask
// for that one any more.
func (rs *records) insert(r *record) {
	if old := rs.byPID[r.pid]; old != nil {
		if old.done {
			rs.forget(old)
		} else {
			old.orphan = true // somebody holds its output open
		}
	}
	rs.byPID[r.pid] = r
}

// reserve makes room for output of a running program: that of programs that
// are gone gives way. It reports whether there is room.
func (rs *records) reserve(r *record, n int) bool {
	for rs.held+n > rs.maxOutput && rs.seen.Len() > 0 {
		rs.forget(oldest(&rs.seen))
	}
	for e := rs.unseen.Front(); e != nil && rs.held+n > rs.maxOutput; e = e.Next() {
		rs.forgetOutput(e.Value.(*record))
	}
	if rs.held+n > rs.maxOutput {
		return false
	}
	rs.held += n
	r.held += n
	return true
}

// forgetOutput leaves of an outcome's output only that there was some.
func (rs *records) forgetOutput(r *record) {
	rs.held -= r.held
	r.held = 0
	for i, s := range r.streams {
		if s.any() {
			s.forget()
			r.streams[i] = &stream{truncated: true}
		}
	}
}

// finish adds a program's outcome.
func (rs *records) finish(r *record, exitCode, signal int) {
	for _, s := range r.streams {
		if s != nil {
			n := s.trim()
			rs.held -= n
			r.held -= n
		}
	}
	if r.orphan {
		rs.drop(r)
		return
	}
	r.exitCode, r.signal = exitCode, signal
	r.done = true
	r.since = time.Now()
	r.element = rs.unseen.PushBack(r)
	rs.arm(r.since.Add(rs.unseenFor))
}

// report notes that an outcome is reported.
func (rs *records) report(r *record) {
	if r.reported {
		return
	}
	rs.unseen.Remove(r.element)
	r.reported = true
	r.since = time.Now()
	r.element = rs.seen.PushBack(r)
	rs.heldReported += r.held
	for rs.heldReported > rs.maxReported && rs.seen.Len() > 1 {
		rs.forget(oldest(&rs.seen))
	}
	rs.arm(r.since.Add(rs.seenFor))
}

// forget removes a program that is gone.
func (rs *records) forget(r *record) {
	if r.reported {
		rs.seen.Remove(r.element)
		rs.heldReported -= r.held
	} else {
		rs.unseen.Remove(r.element)
	}
	delete(rs.byPID, r.pid)
	rs.drop(r)
}

// drop gives back what a program that is gone has taken.
func (rs *records) drop(r *record) {
	for _, s := range r.streams {
		s.forget()
	}
	rs.held -= r.held
	rs.places--
}

// arm sees to it that somebody looks for old outcomes at the given time.
func (rs *records) arm(due time.Time) {
	switch {
	case rs.timer == nil:
		rs.timer = time.AfterFunc(time.Until(due), rs.expire)
	case rs.due.IsZero() || due.Before(rs.due):
		rs.timer.Reset(time.Until(due))
	default:
		return
	}
	rs.due = due
}

// expire forgets old outcomes.
func (rs *records) expire() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.due = time.Time{}
	for _, l := range []struct {
		outcomes *list.List
		keep     time.Duration
	}{{&rs.seen, rs.seenFor}, {&rs.unseen, rs.unseenFor}} {
		for l.outcomes.Len() > 0 {
			r := oldest(l.outcomes)
			if due := r.since.Add(l.keep); time.Now().Before(due) {
				rs.arm(due)
				break
			}
			rs.forget(r)
		}
	}
}
