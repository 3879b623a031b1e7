// Package client is the host's side of the QEMU Guest Agent protocol.
//
//	c := client.New(client.Unix("/run/vm/qga.sock"))
//	defer c.Close()
//	name, err := client.Call(ctx, c, qga.GetHostName, qga.Empty{})
//
// A Client connects when it is first needed and again after a failure. Before
// the first command, and whenever a reply has been given up, it synchronises
// with the agent: whatever else arrives until the agent has echoed a random
// number, such as replies to somebody else's requests, is dropped. It needs
// guest-sync-delimited for that, which agents have since QEMU 1.1.
//
// # Errors
//
// An error reply is a *qga.Error, to be had with errors.As. Every other error
// tells how far the command got: with ErrUnreachable and ErrNoAnswer it has not
// been sent; with any other it may have been carried out, and whether it was is
// not known. Where time ran out the error is context.DeadlineExceeded as well.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// The limits that New sets.
const (
	DefaultTimeout     = 30 * time.Second
	DefaultSyncTimeout = 5 * time.Second
	DefaultSilentWait  = 5 * time.Second
)

var (
	// ErrUnreachable is that no connection could be made. It comes with the
	// road's own error.
	ErrUnreachable = errors.New("cannot reach the agent")
	// ErrNoAnswer is that there is a connection, but nobody at its other end
	// who answers guest-sync-delimited: the guest has not booted, its agent
	// does not run or is busy, or somebody else is connected.
	ErrNoAnswer = errors.New("the agent does not answer")
	// ErrProtocol is a reply that is not what the protocol says.
	ErrProtocol = errors.New("not the guest agent protocol")
)

// A Client talks to one agent. It is safe for concurrent use; calls are made
// one after another, because an agent answers one at a time. The fields are to
// be set before its first use.
type Client struct {
	// Timeout limits a call whose context has no deadline, the wait for its
	// turn included. Zero means no limit.
	Timeout time.Duration
	// SyncTimeout limits connecting and synchronising, in whatever time the
	// call has: an agent that is not there is found out even by a call that
	// may take an hour. Zero means no limit.
	SyncTimeout time.Duration
	// SilentWait is how long a command that replies on failure only may take
	// to fail: after that without a reply it counts as successful. An end of
	// the connection counts as success at once.
	SilentWait time.Duration

	road Road
	// life ends when the Client is closed.
	life context.Context
	end  context.CancelFunc
	// turn holds a token while a call is in progress, which owns link.
	turn chan struct{}
	link *link
}

// New returns a Client of the agent at the end of the road.
func New(road Road) *Client {
	c := &Client{
		Timeout:     DefaultTimeout,
		SyncTimeout: DefaultSyncTimeout,
		SilentWait:  DefaultSilentWait,
		road:        road,
		turn:        make(chan struct{}, 1),
	}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// Close closes the connection. Calls in progress, and all later ones, fail with
// net.ErrClosed. Files and processes stay open in the guest: they are the
// agent's, not the connection's.
func (c *Client) Close() error {
	c.end()
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.hangUp()
	return nil
}

// hangUp drops the connection. The next call makes a new one.
func (c *Client) hangUp() {
	if c.link != nil {
		c.link.close()
		c.link = nil
	}
}

// do makes one call. args is as in wire.Writer.Request; result takes the value
// of a successful reply, which is valid until it returns.
func (c *Client) do(ctx context.Context, info qga.Info, args func(*wire.Writer), result func(wire.Value) error) error {
	if _, ok := ctx.Deadline(); !ok && c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(c.life, cancel)
	defer stop()

	err := c.inTurn(ctx, info, args, result)
	switch {
	case err == nil:
		return nil
	case c.life.Err() != nil && errors.Is(err, context.Canceled):
		err = net.ErrClosed
	}
	return fmt.Errorf("%s: %w", info.Name, err)
}

func (c *Client) inTurn(ctx context.Context, info qga.Info, args func(*wire.Writer), result func(wire.Value) error) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ended(ctx.Err(), "waiting for the calls before it")
	}
	if c.life.Err() != nil {
		return net.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for {
		proven, err := c.ready(ctx)
		if err != nil {
			return err
		}
		l := c.link
		err = c.exchange(ctx, info, args, result)
		// An agent that was restarted since the last call shows by refusing
		// the first byte. Once a byte has gone, nothing is sent twice.
		refused := err != nil && c.link == nil && l.sent == 0
		if !refused || proven || ctx.Err() != nil {
			return err
		}
	}
}

// ready makes sure of a connection that is in step with the agent. It returns
// whether that was proven just now, rather than by an earlier call.
func (c *Client) ready(ctx context.Context) (proven bool, err error) {
	if c.link != nil && c.link.inStep {
		return false, nil
	}
	parent := ctx
	if c.SyncTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.SyncTimeout)
		defer cancel()
	}
	reused := c.link != nil
	if !reused {
		if err := c.connect(ctx); err != nil {
			return false, err
		}
	}
	err = c.sync(ctx)
	if err != nil && reused && c.link == nil && ctx.Err() == nil {
		// The connection went in the meantime.
		if err := c.connect(ctx); err != nil {
			return false, err
		}
		err = c.sync(ctx)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(parent.Err(), context.Canceled):
		return false, err
	default:
		return false, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
}

func (c *Client) connect(ctx context.Context) error {
	conn, err := c.road(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	c.link = newLink(conn)
	return nil
}

// sync gets in step with the agent.
func (c *Client) sync(ctx context.Context) error {
	l := c.link
	l.restart()
	// Of 53 bits, for agents whose numbers are doubles.
	id := rand.Int64N(1 << 53)
	err := l.send(ctx, func(w *wire.Writer) {
		// Ends whatever request has been begun on this channel. The agent
		// answers the byte with an error, which is dropped below.
		w.Raw("\xff")
		w.Request(qga.SyncDelimited.Name, func(w *wire.Writer) {
			w.Raw(`{"id": `)
			w.Int(id)
			w.Raw("}")
		})
	})
	if err != nil {
		return c.broken(ctx, "sending "+qga.SyncDelimited.Name, err)
	}
	for {
		v, err := l.receive(ctx)
		if _, garbage := errors.AsType[*wire.SyntaxError](err); garbage {
			// Among them the 0xFF before the reply: it ends half a value that
			// may have come before, so that the reply is understood.
			continue
		}
		if err != nil {
			return c.broken(ctx, "waiting for "+qga.SyncDelimited.Name, err)
		}
		if v.Kind() != wire.Object {
			continue
		}
		if _, ok := v.Member("QMP"); ok {
			c.hangUp()
			return fmt.Errorf("%w: this is QEMU's monitor (QMP)", ErrProtocol)
		}
		if r, ok := v.Member("return"); ok && r.Kind() == wire.Int && r.Int() == id {
			l.settle()
			l.inStep = true
			return nil
		}
	}
}

// exchange sends a request and waits for its reply.
func (c *Client) exchange(ctx context.Context, info qga.Info, args func(*wire.Writer), result func(wire.Value) error) error {
	l := c.link
	// Until there is a reply, there is one that may come late.
	l.inStep = false
	if err := l.send(ctx, func(w *wire.Writer) { w.Request(info.Name, args) }); err != nil {
		return c.broken(ctx, "sending the request", err)
	}

	wait := ctx
	if info.Silent {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, c.SilentWait)
		defer cancel()
	}
	for {
		v, err := l.receive(wait)
		if _, garbage := errors.AsType[*wire.SyntaxError](err); garbage {
			return fmt.Errorf("%w: %.100s", ErrProtocol, err)
		}
		if err != nil {
			err = c.broken(wait, "waiting for the reply", err)
			silence := c.link == nil || wait.Err() != nil
			if info.Silent && ctx.Err() == nil && silence {
				return nil
			}
			return err
		}
		reply, ok, err := replyOf(v)
		if err != nil {
			return err
		}
		if !ok {
			continue // an announcement
		}
		if reply.err != nil {
			err = reply.err
		} else {
			err = result(reply.value)
		}
		l.inStep = l.settle()
		return err
	}
}

// broken deals with an error of the connection, or the end of ctx.
func (c *Client) broken(ctx context.Context, doing string, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil && errors.Is(err, ctxErr) {
		// The connection may be as good as ever.
		if c.link.dead {
			c.hangUp()
		}
		return ended(ctxErr, doing)
	}
	c.hangUp()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("connection lost %s: %w", doing, err)
}

// ended returns the error of a context that ended while something was done.
func ended(err error, doing string) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return timeout{doing}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// A timeout is a context.DeadlineExceeded with words for people.
type timeout struct{ doing string }

func (t timeout) Error() string { return "timed out " + t.doing }
func (t timeout) Unwrap() error { return context.DeadlineExceeded }
func (t timeout) Timeout() bool { return true }

// A reply is what a line of the agent's says.
type reply struct {
	value wire.Value
	err   *qga.Error
}

// replyOf takes a value for a reply. It returns false for what is none and yet
// legal: nothing of the kind is sent today, but clients have been told to
// ignore it.
func replyOf(v wire.Value) (r reply, ok bool, err error) {
	if v.Kind() != wire.Object {
		return r, false, fmt.Errorf("%w: the reply is not an object", ErrProtocol)
	}
	if r.value, ok = v.Member("return"); ok {
		return r, true, nil
	}
	if e, ok := v.Member("error"); ok && e.Kind() == wire.Object {
		text := func(name string) string {
			if m, ok := e.Member(name); ok && m.Kind() == wire.String {
				return string(m.Bytes())
			}
			return ""
		}
		r.err = &qga.Error{Class: qga.Class(text("class")), Desc: text("desc")}
		return r, true, nil
	}
	if _, ok := v.Member("event"); ok {
		return r, false, nil
	}
	return r, false, fmt.Errorf("%w: the reply has neither return nor error", ErrProtocol)
}

// A link is a connection and the state of the two streams on it.
type link struct {
	conn io.ReadWriteCloser
	rd   *wire.Reader
	w    *wire.Writer
	// sent counts the bytes of the current request that have been written.
	sent int
	// inStep says that no reply is due.
	inStep bool
	// dead says that the connection had to be closed.
	dead bool
}

func newLink(conn io.ReadWriteCloser) *link {
	l := &link{conn: conn, rd: wire.NewReplyReader(conn)}
	l.restart()
	return l
}

// restart forgets the rest of a request that could not be sent.
func (l *link) restart() { l.w = wire.NewWriter((*counter)(l)) }

type counter link

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.conn.Write(b)
	c.sent += n
	return n, err
}

func (l *link) close() {
	_ = l.conn.Close() // nothing is lost: what matters has been answered
	l.rd.Close()
}

func (l *link) send(ctx context.Context, request func(*wire.Writer)) error {
	l.sent = 0
	return l.during(ctx, func() error {
		request(l.w)
		err := l.w.Flush()
		if l.w.Large() {
			l.w.Trim()
		}
		return err
	})
}

func (l *link) receive(ctx context.Context) (v wire.Value, err error) {
	err = l.during(ctx, func() (err error) {
		v, err = l.rd.Read()
		return err
	})
	return v, err
}

// settle takes what follows a reply, and gives back its memory. It reports
// whether nothing followed that is not for this place.
func (l *link) settle() bool {
	if _, ok, err := l.rd.Next(); ok || err != nil {
		return false
	}
	if l.rd.Large() {
		l.rd.Trim()
	}
	return true
}

// past is a deadline that interrupts.
var past = time.Unix(1, 0)

// during runs fn, which reads or writes, and interrupts it when ctx is done;
// the error then is that of ctx. A connection that knows no deadlines can only
// be interrupted by closing it.
func (l *link) during(ctx context.Context, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline, ok := l.conn.(interface{ SetDeadline(time.Time) error })
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		if !ok || deadline.SetDeadline(past) != nil {
			l.dead = true
			_ = l.conn.Close()
		}
	})
	err := fn()
	if stop() {
		return err
	}
	<-interrupted
	if !l.dead && deadline.SetDeadline(time.Time{}) != nil {
		l.dead = true
	}
	if err != nil && (l.dead || errors.Is(err, os.ErrDeadlineExceeded)) {
		return ctx.Err()
	}
	return err
}
