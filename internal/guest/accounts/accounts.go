package accounts

import (
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

	// home has an element while somebody is in a home directory. One at a time:
	// two clients that add a key at once both expect to find theirs, and a home
	// that does not answer must not take a thread for each who asks.
	home chan struct{}
}

// New returns the users of a guest.
func New(c Config) *Accounts {
	return &Accounts{root: c.Root, run: c.Run, home: make(chan struct{}, 1)}
}
