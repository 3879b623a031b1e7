package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/resident"
	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// A session is one client's stay. Its requests are answered in order, one at a
// time.
type session struct {
	agent *Agent
	conn  io.ReadWriteCloser
	rd    *wire.Reader
	w     *wire.Writer
}

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
	for {
		v, ok, err := s.rd.Next()
		switch {
		case err != nil:
			s.w.Error(wire.Value{}, false, protocolError(err))
		case ok:
			if err := s.serve(ctx, v); err != nil {
				return err
			}
		default:
			// Replies wait for as long as there are requests to be answered,
			// and no longer.
			if err := s.w.Flush(); err != nil {
				return err
			}
			if err := s.fill(); err != nil {
				return err
			}
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

// serve answers one request. An error ends the session.
func (s *session) serve(ctx context.Context, v wire.Value) error {
	s.agent.count()
	req, err := wire.Envelope(v)
	if err != nil {
		s.w.Error(req.ID, req.HasID, protocolError(err))
		return nil
	}
	h := s.agent.byName[string(req.Command)]
	if h == nil {
		s.w.Error(req.ID, req.HasID, &qga.Error{
			Class: qga.CommandNotFound,
			Desc:  "The command " + string(req.Command) + " has not been found",
		})
		return nil
	}
	if !s.agent.enabled(h) {
		s.w.Error(req.ID, req.HasID, &qga.Error{
			Class: qga.CommandNotFound,
			Desc:  "Command " + h.Name + " has been disabled: the command is not allowed",
		})
		return nil
	}
	if !h.Prompt {
		// Nobody's reply waits for somebody else's disk.
		if err := s.w.Flush(); err != nil {
			return err
		}
	}
	if s.agent.log.Enabled(logging.Debug) {
		s.agent.log.Debugf("%s called", h.Name)
	}

	args := wire.EmptyObject
	if req.HasArgs {
		args = req.Args
	}
	s.w.BeginReturn(h.Name == qga.SyncDelimited.Name)
	err = s.agent.run(ctx, h, args, s.w)
	switch {
	case err != nil:
		if !s.w.Error(req.ID, req.HasID, protocolError(err)) {
			return errTorn
		}
	case h.Silent:
		s.w.Abort()
	default:
		s.w.EndReturn(req.ID, req.HasID)
	}
	return nil
}
