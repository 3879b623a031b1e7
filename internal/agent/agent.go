// Package agent is the guest side of the protocol: it takes requests from
// channels, decides whether they may run, has them carried out and replies.
// It knows no command but those about itself.
package agent

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/resident"
	"github.com/bellhop-vm/bellhop/qga"
)

// maxSessions bounds how many clients of one channel are served at a time.
// Further ones wait in the listening socket's queue.
const maxSessions = 64

// farewell is how long commands may go on when the agent is told to end. Some
// cannot be stopped: a system call on a disk that does not answer.
const farewell = 5 * time.Second

// A Channel is a way for hosts to reach the agent.
type Channel interface {
	// Accept waits for a client. It returns an error only when there won't be
	// any more: what passes by itself it waits out.
	Accept(ctx context.Context) (io.ReadWriteCloser, error)
}

// An Agent serves a set of commands. It is safe for concurrent use.
type Agent struct {
	log      *logging.Logger
	gates    []Gate
	handlers []Handler
	byName   map[string]*Handler
	// served counts requests since the heap was last tidied up.
	served atomic.Int64
}

// New returns an Agent that offers the given commands besides the ones that
// every agent has: guest-sync, guest-sync-delimited, guest-ping, guest-info.
// Of the gates the first one that does not pass a command on decides. A command
// given twice is a mistake in the program, and panics.
func New(log *logging.Logger, gates []Gate, handlers ...Handler) *Agent {
	a := &Agent{log: log, gates: gates}
	a.handlers = inOrder(append(a.own(), handlers...))
	a.byName = make(map[string]*Handler, len(a.handlers))
	for i := range a.handlers {
		h := &a.handlers[i]
		if _, ok := a.byName[h.Name]; ok {
			panic("agent: " + h.Name + " is registered twice")
		}
		a.byName[h.Name] = h
	}
	return a
}

// inOrder sorts handlers as the protocol's catalogue does, in which the C agent
// lists them.
func inOrder(handlers []Handler) []Handler {
	place := make(map[string]int)
	for i, c := range qga.Commands() {
		place[c.Describe().Name] = i
	}
	slices.SortStableFunc(handlers, func(a, b Handler) int { return place[a.Name] - place[b.Name] })
	return handlers
}

// Commands returns the descriptors of all commands that the agent offers.
func (a *Agent) Commands() []qga.Info {
	list := make([]qga.Info, len(a.handlers))
	for i := range a.handlers {
		list[i] = a.handlers[i].Info
	}
	return list
}

// own are the commands about the agent itself.
func (a *Agent) own() []Handler {
	echo := func(_ context.Context, args qga.SyncArgs) (int64, error) { return args.ID, nil }
	return []Handler{
		Handle(qga.SyncDelimited, echo),
		Handle(qga.Sync, echo),
		Handle(qga.Ping, func(context.Context, qga.Empty) (qga.Empty, error) { return qga.Empty{}, nil }),
		Handle(qga.GuestInfo, a.info),
	}
}

func (a *Agent) info(context.Context, qga.Empty) (qga.AgentInfo, error) {
	info := qga.AgentInfo{Version: qga.ProtocolVersion}
	for i := range a.handlers {
		h := &a.handlers[i]
		info.SupportedCommands = append(info.SupportedCommands, qga.CommandInfo{
			Name:            h.Name,
			Enabled:         a.enabled(h),
			SuccessResponse: !h.Silent,
		})
	}
	return info, nil
}

// find returns the handler of a command that may run.
func (a *Agent) find(command []byte) (*Handler, error) {
	h := a.byName[string(command)]
	if h == nil {
		return nil, &qga.Error{
			Class: qga.CommandNotFound,
			Desc:  "The command " + string(command) + " has not been found",
		}
	}
	if !a.enabled(h) {
		return nil, &qga.Error{
			Class: qga.CommandNotFound,
			Desc:  "Command " + h.Name + " has been disabled: the command is not allowed",
		}
	}
	return h, nil
}

// enabled asks the gates.
func (a *Agent) enabled(h *Handler) bool {
	for _, g := range a.gates {
		if v := g(&h.Info); v != Pass {
			return v == Allow
		}
	}
	return true
}

// Listen serves the clients of the channel until ctx is done, or the channel
// has no more; then it returns the channel's error.
func (a *Agent) Listen(ctx context.Context, ch Channel) error {
	ctx, cancel := context.WithCancel(ctx)
	var sessions sync.WaitGroup
	defer func() {
		cancel()
		if !waitFor(&sessions, farewell) {
			a.log.Warningf("a command is still running: it is left alone")
		}
	}()

	places := make(chan struct{}, maxSessions)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		conn, err := ch.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		sessions.Go(func() {
			defer func() { <-places }()
			if err := a.Serve(ctx, conn); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
				a.log.Debugf("connection ended: %v", err)
			}
		})
	}
}

const (
	// quiet is how long after the last request memory goes back to the system
	// that only a busy agent needs.
	quiet = 2 * time.Second
	// burst is how many requests make the heap grow.
	burst = 1000
)

// count counts a request. When there is peace again, what it needed of the program
// goes back, and after a burst what the heap has grown to: the runtime by itself
// would keep that for minutes, and a few megabytes are most of this agent.
func (a *Agent) count() {
	if a.served.Add(1) != 1 {
		return
	}
	go func() {
		for before := int64(0); before != a.served.Load(); {
			before = a.served.Load()
			time.Sleep(quiet)
		}
		if a.served.Swap(0) >= burst {
			debug.FreeOSMemory()
		}
		resident.Trim()
	}()
}

// waitFor waits for the group, but not longer than limit.
func waitFor(group *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}
