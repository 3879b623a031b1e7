package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/resident"
	"github.com/bellhop-vm/bellhop/internal/threads"
	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// A session is one client's stay. Its requests are answered in order, one at a
// time.
type session struct {
	agent *Agent
	conn  io.ReadWriteCloser
	rd    *wire.Reader

	// Replies gather in w while there are requests to be answered. From the
	// second request of a burst on a timer sends what has gathered, so that no
	// reply waits for a command behind it that takes its time.
	w     *wire.Writer
	timer *time.Timer
	// burst says that w is used by two: each holds mu meanwhile. It is changed by
	// the session only, holding mu.
	burst bool
	mu    sync.Mutex
	armed bool // whether the timer is going to send
}

// holdBack is how long a reply may wait for those behind it.
const holdBack = time.Millisecond

// errTorn ends a session whose reply broke off in the middle.
var errTorn = errors.New("a reply could not be completed")

// Serve serves one client until it leaves or ctx is done, and closes conn. The
// error is why it ended; io.EOF when the client left in peace.
func (a *Agent) Serve(ctx context.Context, conn io.ReadWriteCloser) error {
	// Closing is what ends a read or a write that is under way.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		if stop() {
			conn.Close()
		}
	}()

	s := session{agent: a, conn: conn, rd: wire.NewReader(conn), w: wire.NewWriter(conn)}
	defer s.rd.Close()
	defer s.endBurst()
	for {
		v, ok, err := s.rd.Next()
		switch {
		case err != nil:
			s.lock()
			s.w.Error(wire.Value{}, false, protocolError(err))
			s.unlock()
		case ok:
			if err := s.serve(ctx, v); err != nil {
				return err
			}
		default:
			if err := s.flush(); err != nil {
				return err
			}
			if err := s.fill(); err != nil {
				return err
			}
			threads.Restore() // whatever started this thread, the client waits for it
		}
	}
}

// fill waits for more input. Buffers that a large request or reply needed are
// given back when the client is quiet.
func (s *session) fill() error {
	deadline, ok := s.conn.(interface{ SetReadDeadline(time.Time) error })
	if !ok || !s.rd.Large() && !s.w.Large() {
		return s.rd.Fill()
	}
	if deadline.SetReadDeadline(time.Now().Add(quiet)) != nil {
		return s.rd.Fill()
	}
	err := s.rd.Fill()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.rd.Trim()
		s.w.Trim()
		debug.FreeOSMemory()
		resident.Trim()
		err = nil
	}
	if resetErr := deadline.SetReadDeadline(time.Time{}); err == nil {
		err = resetErr
	}
	return err
}

// beginBurst is called before each command that may hold up replies.
func (s *session) beginBurst() {
	if s.burst || !s.w.Pending() {
		return
	}
	s.mu.Lock()
	s.burst = true
	s.unlock()
}

// sendGathered is what the timer does.
func (s *session) sendGathered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	if s.burst {
		_ = s.w.Flush() // the session learns of it from its own
	}
}

// endBurst has w to the session alone again.
func (s *session) endBurst() {
	if !s.burst {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.burst, s.armed = false, false
	s.timer.Stop()
}

// flush sends what has gathered, which is the end of a burst.
func (s *session) flush() error {
	s.endBurst()
	return s.w.Flush()
}

// lock and unlock are around all use of w that may be in a burst.
func (s *session) lock() {
	if s.burst {
		s.mu.Lock()
	}
}

func (s *session) unlock() {
	if !s.burst {
		return
	}
	if !s.armed {
		s.armed = true
		if s.timer == nil {
			s.timer = time.AfterFunc(holdBack, s.sendGathered)
		} else {
			s.timer.Reset(holdBack)
		}
	}
	s.mu.Unlock()
}

// serve answers one request. An error ends the session.
func (s *session) serve(ctx context.Context, v wire.Value) error {
	s.agent.count()
	req, err := wire.Envelope(v)
	if err == nil {
		var h *Handler
		if h, err = s.agent.find(req.Command); err == nil {
			// The one writes its reply by itself, the other may be the last thing
			// that happens, and does so whoever is there to hear of it.
			if h.stream != nil || h.Silent {
				if err := s.flush(); err != nil && !h.Silent {
					return err
				}
			}
			err = s.carryOut(ctx, h, req)
		}
	}
	if err != nil {
		s.lock()
		defer s.unlock()
		if !s.w.Error(req.ID, req.HasID, protocolError(err)) {
			return errTorn
		}
		// The id is in that memory, too.
		if e, ok := errors.AsType[*InUse](err); ok {
			s.rd.Lend(e.Until)
		}
	}
	return nil
}

// carryOut carries out a command and writes the reply to its success. A panic in a
// handler costs its caller an error, not every client the agent.
func (s *session) carryOut(ctx context.Context, h *Handler, req wire.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.agent.log.Warningf("%s failed in a way it never should: %v", h.Name, p)
			err = fmt.Errorf("internal error in %s", h.Name)
		}
	}()
	if s.agent.log.Enabled(logging.Debug) {
		s.agent.log.Debugf("%s called", h.Name)
	}
	v := wire.EmptyObject
	if req.HasArgs {
		v = req.Args
	}
	args, err := h.arguments(v)
	if err != nil {
		return err
	}
	if h.stream != nil {
		s.w.BeginReturn(false)
		if err := h.stream(ctx, args, s.w); err != nil {
			return err
		}
		s.w.EndReturn(req.ID, req.HasID)
		return nil
	}
	s.beginBurst()
	result, err := h.call(ctx, args)
	if err != nil || h.Silent {
		return err
	}
	s.lock()
	defer s.unlock()
	s.w.BeginReturn(h.Name == qga.SyncDelimited.Name)
	h.encoder.Encode(s.w, reflect.ValueOf(result))
	s.w.EndReturn(req.ID, req.HasID)
	return nil
}
