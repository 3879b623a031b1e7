// Package runtest has programs run that are not there, for tests of those who
// would run them.
package runtest

import (
	"context"
	"sync"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
)

// A Recorder remembers the programs that it was told to run. Its method Run is
// a run.Func.
type Recorder struct {
	// Reply is what a program does. If nil, all succeed in silence.
	Reply run.Func

	mu       sync.Mutex
	commands []run.Command
}

// Run remembers c.
func (r *Recorder) Run(ctx context.Context, c run.Command) ([]byte, error) {
	r.mu.Lock()
	r.commands = append(r.commands, c)
	r.mu.Unlock()
	if r.Reply == nil {
		return nil, nil
	}
	return r.Reply(ctx, c)
}

// Take returns the programs since the last call, in order.
func (r *Recorder) Take() []run.Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	commands := r.commands
	r.commands = nil
	return commands
}
