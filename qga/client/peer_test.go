package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/qga/client"
)

// A peer is what a test puts at the other end of a unix socket.
type peer struct {
	path string
	// accepted counts the connections.
	accepted atomic.Int32
}

// listen calls serve for each connection, with its number from one on. A
// connection is closed when serve returns.
func listen(t *testing.T, path string, serve func(n int, conn net.Conn)) *peer {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{path: path}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		l.Close()
		cancel()
		running.Wait()
	})
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n := int(p.accepted.Add(1))
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			running.Go(func() {
				defer stop()
				defer conn.Close()
				serve(n, conn)
			})
		}
	})
	return p
}

func socket(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "qga.sock")
}

// dial returns a Client of the peer.
func (p *peer) dial(t *testing.T) *client.Client {
	t.Helper()
	return newClient(t, client.Unix(p.path))
}

func newClient(t *testing.T, road client.Road) *client.Client {
	t.Helper()
	c := client.New(road)
	c.Timeout, c.SyncTimeout = patience, patience
	t.Cleanup(func() { c.Close() })
	return c
}

// fake is a peer that knows bytes only. Its connections are handed to the
// script, which is to fail the test by t.Error.
func fake(t *testing.T, script func(n int, s *script)) *peer {
	t.Helper()
	return listen(t, socket(t), func(n int, conn net.Conn) {
		script(n, newScript(t, conn))
	})
}

// A script is one connection of a fake.
type script struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func newScript(t *testing.T, conn net.Conn) *script {
	return &script{t, conn, bufio.NewReader(conn)}
}

// line reads one line, and "" at the end.
func (s *script) line() string {
	text, err := s.in.ReadString('\n')
	if err != nil {
		return ""
	}
	return text
}

// expect reads one line that has to be want. It returns false if it is not, and
// when the client has left.
func (s *script) expect(want string) bool {
	got := s.line()
	if got == "" {
		return false
	}
	if got != want+"\n" {
		s.t.Errorf("the client sent %q, want %q", got, want)
		return false
	}
	return true
}

// syncID reads a sync and returns its number; at the end it returns false.
func (s *script) syncID() (int64, bool) {
	text := s.line()
	if text == "" {
		return 0, false
	}
	var id int64
	if _, err := fmt.Sscanf(text, "\xff"+`{"execute": "guest-sync-delimited", "arguments": {"id": %d}}`, &id); err != nil {
		s.t.Errorf("the client sent %q, want a sync", text)
		return 0, false
	}
	return id, true
}

// sync answers one sync as an agent does.
func (s *script) sync() bool {
	id, ok := s.syncID()
	if ok {
		s.send(`{"error": {"class": "GenericError", "desc": "JSON parse error, stray '\uFFFD'"}}`+"\n"+
			"\xff"+`{"return": %d}`+"\n", id)
	}
	return ok
}

func (s *script) send(format string, args ...any) {
	// The client may have left by now.
	_, _ = fmt.Fprintf(s.conn, format, args...)
}

// hold keeps the connection until the client closes it.
func (s *script) hold() { _, _ = io.Copy(io.Discard, s.in) }

// newAgent returns an agent of ours with the given commands.
func newAgent(handlers ...agent.Handler) *agent.Agent {
	return agent.New(logging.New(logging.Discard, logging.Discard, false), nil, handlers...)
}

// real is a peer that is an agent of ours.
func real(t *testing.T, handlers ...agent.Handler) *peer {
	t.Helper()
	a := newAgent(handlers...)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return listen(t, socket(t), func(_ int, conn net.Conn) {
		_ = a.Serve(ctx, conn) // ends with the client
	})
}

// patience bounds every wait for what is to come.
const patience = 2 * time.Minute

// soon returns a context for what happens at once, on a busy machine.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func equalJSON(t *testing.T, got json.RawMessage, want string) {
	t.Helper()
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
