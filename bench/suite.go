//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A work is something to do, with the figures that it yields.
type work struct {
	rows []row
	// floor says that the floor's server can do it too. To a request for
	// file contents it replies with so many bytes.
	floor bool
	reply int
	// onDisk puts files and state where the system has its temporary files.
	onDisk bool
	// oneCPU has contender and client share a processor. With more, where the two
	// happen to run decides more about a short trip than what it is made for. It is
	// not for work that waits.
	oneCPU bool
	// waits says that most of it is waiting: it is done by all at once, and
	// less often.
	waits bool
	do    func(*trial)
}

// A row is a figure.
type row struct {
	name string
	unit string
	// quantile of all samples; zero stands for the median.
	quantile float64
	aim      aim
}

// A trial is one contender doing a work once.
type trial struct {
	*suite
	who contender
	// process is nil in a guest.
	process *process
	socket  string
	// put makes a file with the given contents where the agent is. It comes
	// before dial.
	put func(data []byte) (path string, err error)
	// first is true in the first round, when results are checked.
	first bool
	idle  bool // whether it is the floor, with nothing to be checked
	rows  [][]float64
	err   error
}

// sample adds to the samples of a row of the work.
func (t *trial) sample(row int, values ...float64) {
	t.rows[row] = append(t.rows[row], values...)
}

// dial returns a connection on which the agent has answered.
func (t *trial) dial() *conn {
	var c *conn
	if t.process != nil {
		c = t.process.connect()
	} else {
		c = connect(t.socket)
	}
	c.sync()
	return c
}

// hangUp ends a connection and takes over its error.
func (t *trial) hangUp(c *conn) {
	c.close()
	t.fail(c.err)
}

func (t *trial) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// A suite goes through all work.
type suite struct {
	ctx        context.Context
	dir        string
	diskDir    string
	only       *regexp.Regexp
	rounds     int
	quick      bool
	contenders [contenderCount]contender
	results    []result
	random     []byte
	serial     int
}

// fewRounds is the number of rounds for work that waits.
func (s *suite) fewRounds() int { return min(s.rounds, 3) }

// data returns bytes that neither compress nor repeat.
func (s *suite) data(size int) []byte {
	if s.random == nil {
		s.random = make([]byte, 48<<20)
		source := rand.NewChaCha8([32]byte{})
		_, _ = source.Read(s.random) // never fails
	}
	return s.random[:size]
}

// onHost measures what goes over unix sockets.
func (s *suite) onHost() error {
	for _, w := range hostWork() {
		if err := s.measure(w, s.enterProcess); err != nil {
			return err
		}
	}
	return nil
}

// enterProcess starts a fresh contender.
func (s *suite) enterProcess(w *work, who int) (*trial, func(), error) {
	s.serial++
	dir := s.dir
	if w.onDisk {
		dir = s.diskDir
	}
	p, err := s.contenders[who].start(filepath.Join(dir, fmt.Sprint(s.serial)), w.reply)
	if err != nil {
		return nil, nil, err
	}
	put := func(data []byte) (string, error) {
		path := filepath.Join(p.dir, "data")
		return path, os.WriteFile(path, data, 0o600)
	}
	return &trial{process: p, socket: p.socket, put: put}, p.stop, nil
}

// measure has the contenders do a work, in turns.
func (s *suite) measure(w work, enter func(*work, int) (*trial, func(), error)) error {
	if !slices.ContainsFunc(w.rows, func(r row) bool { return s.only.MatchString(r.name) }) {
		return nil
	}
	progress(w.rows[0].name)
	who := []int{theC, ours}
	if w.floor {
		who = append(who, floor)
	}
	rounds := s.rounds
	if w.waits {
		rounds = s.fewRounds()
	}
	samples := make([][contenderCount][]float64, len(w.rows))
	for round := range rounds {
		var trials [contenderCount]*trial
		var together sync.WaitGroup
		for _, i := range who {
			if s.ctx.Err() != nil {
				return context.Cause(s.ctx)
			}
			err := w.place(func() error {
				t, leave, err := enter(&w, i)
				if err != nil {
					return err
				}
				t.suite, t.who, t.first, t.idle = s, s.contenders[i], round == 0, i == floor
				t.rows = make([][]float64, len(w.rows))
				trials[i] = t
				once := func() {
					w.do(t)
					leave()
				}
				if w.waits {
					together.Go(once)
				} else {
					once()
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		together.Wait()
		for _, i := range who {
			if err := trials[i].err; err != nil {
				var stderr string
				if p := trials[i].process; p != nil {
					stderr = "\n" + p.stderr.String()
				}
				return fmt.Errorf("%s: %s: %w%s", w.rows[0].name, trials[i].who.program, err, stderr)
			}
			for row, values := range trials[i].rows {
				samples[row][i] = append(samples[row][i], values...)
			}
		}
	}
	for i, r := range w.rows {
		if s.only.MatchString(r.name) {
			s.results = append(s.results, newResult(r, samples[i]))
		}
	}
	return nil
}

// place calls f, on one processor if that is what the work asks for. Processes that f
// starts stay there.
func (w *work) place(f func() error) error {
	if !w.oneCPU {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: nothing else is to run on this thread
		done <- errors.Join(useOneCPU(), f())
	}()
	return <-done
}

// useOneCPU leaves the calling thread one of its processors.
func useOneCPU() error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	cpu := 0
	for !set.IsSet(cpu) {
		cpu++
	}
	set.Zero()
	set.Set(cpu)
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &set))
}

// pause sleeps, unless the suite is interrupted.
func (s *suite) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-s.ctx.Done():
		return errors.New("interrupted")
	}
}
