package accounts

import (
	"context"
	"errors"
	"sync"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
)

// A Config is what New needs to know.
type Config struct {
	// Root takes the place of the root directory.
	Root root.Dir
	// Run runs chpasswd and getent.
	Run run.Func
}

// Accounts are the users of a guest. It is safe for concurrent use.
type Accounts struct {
	root root.Dir
	run  run.Func

	// visits has an element for each visitor of a home directory, as one whose home
	// does not answer holds a thread.
	visits chan struct{}

	// homes are those with a visitor, which the channel's end tells of to the next. One
	// at a time: two clients that add a key at once both expect to find theirs.
	mu    sync.Mutex
	homes map[string]chan struct{}
}

// New returns the users of a guest.
func New(c Config) *Accounts {
	return &Accounts{root: c.Root, run: c.Run, visits: make(chan struct{}, maxVisits), homes: make(map[string]chan struct{})}
}

// maxVisits is how many homes can be waited for at once.
const maxVisits = 16

var errVisits = errors.New("too many others do not answer")

// enter waits until nobody is in a home directory, and returns what to call when
// leaving it.
func (a *Accounts) enter(ctx context.Context, home string) (leave func(), err error) {
	for {
		a.mu.Lock()
		taken, ok := a.homes[home]
		if !ok {
			select {
			case a.visits <- struct{}{}:
			default:
				a.mu.Unlock()
				return nil, errVisits
			}
			mine := make(chan struct{})
			a.homes[home] = mine
			a.mu.Unlock()
			return func() {
				a.mu.Lock()
				defer a.mu.Unlock()
				delete(a.homes, home)
				<-a.visits
				close(mine)
			}, nil
		}
		a.mu.Unlock()
		select {
		case <-taken:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
