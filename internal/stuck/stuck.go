// Package stuck bounds the time spent on system calls that may never return,
// such as those on a file system whose server or disk is gone. Nothing can end
// such a call; but one can stop waiting for it and not repeat it.
package stuck

import (
	"cmp"
	"errors"
	"runtime"
	"sync"
	"time"
)

// ErrStuck is the error of a call that did not return in time.
var ErrStuck = errors.New("system call does not return")

// DiskLimit is how long a disk or a server may take that will answer at all: it may
// have been asleep.
const DiskLimit = 20 * time.Second

// most is how many calls may be stuck at once. Each holds a thread.
const most = 16

// Calls are calls under way, by what they are about. The zero value is ready
// for use.
type Calls[K comparable, V any] struct {
	// Most is how many may be stuck at once, if not 16.
	Most int

	mu    sync.Mutex
	calls map[K]*call[V]
	stuck int
}

type call[V any] struct {
	done  chan struct{}
	value V
	err   error
	stuck bool
}

// Do returns what fn returns, or ErrStuck if that takes longer than limit. In
// that case Do returns ErrStuck for the same key at once until fn has returned.
// Requests for a key while fn runs share its result.
func (c *Calls[K, V]) Do(key K, limit time.Duration, fn func() (V, error)) (V, error) {
	var none V
	current, err := c.start(key, fn)
	if err != nil {
		return none, err
	}
	runtime.Gosched() // to fn, which hardly ever takes long enough for a timer
	select {
	case <-current.done:
		return current.value, current.err
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-current.done:
		return current.value, current.err
	case <-timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[key] != current { // it came in the meantime
		return current.value, current.err
	}
	if !current.stuck {
		current.stuck = true
		c.stuck++
	}
	return none, ErrStuck
}

// start starts fn unless a call for key is under way.
func (c *Calls[K, V]) start(key K, fn func() (V, error)) (*call[V], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	current, ok := c.calls[key]
	switch {
	case ok && current.stuck:
		return nil, ErrStuck
	case ok:
		return current, nil
	case c.stuck >= cmp.Or(c.Most, most):
		return nil, ErrStuck
	}
	if c.calls == nil {
		c.calls = make(map[K]*call[V])
	}
	current = &call[V]{done: make(chan struct{})}
	c.calls[key] = current
	go func() {
		current.value, current.err = fn()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.calls, key)
		if current.stuck {
			c.stuck--
		}
		close(current.done)
	}()
	return current, nil
}

// Do returns what fn returns, or ErrStuck if that takes longer than limit. Then it
// is for late to see to what fn returns when it does after all. How many calls are
// stuck at once is for the caller to bound.
func Do[V any](limit time.Duration, fn func() V, late func(V)) (V, error) {
	done, gone := make(chan V), make(chan struct{})
	go func() {
		v := fn()
		select {
		case done <- v:
		case <-gone:
			late(v)
		}
	}()
	runtime.Gosched() // as above
	select {
	case v := <-done:
		return v, nil
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case v := <-done:
		return v, nil
	case <-timer.C:
		close(gone)
		var none V
		return none, ErrStuck
	}
}
