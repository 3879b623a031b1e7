package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
)

// seek is a handler whose result is its argument: it shows whose reply came.
var seek = agent.Handle(qga.FileSeek, func(_ context.Context, a qga.FileSeekArgs) (qga.FileSeekResult, error) {
	return qga.FileSeekResult{Position: a.Offset}, nil
})

func checkSeek(t *testing.T, c *client.Client, offset int64) {
	t.Helper()
	r, err := client.Call(soon(t), c, qga.FileSeek, qga.FileSeekArgs{Offset: offset})
	if err != nil || r.Position != offset {
		t.Errorf("the call returned %+v, %v", r, err)
	}
}

func ping(ctx context.Context, c *client.Client) error {
	_, err := client.Call(ctx, c, qga.Ping, qga.Empty{})
	return err
}

func TestCall(t *testing.T) {
	p := real(t, seek, agent.Handle(qga.FileOpen, func(_ context.Context, a qga.FileOpenArgs) (qga.Handle, error) {
		return 0, qga.Failure("failed to open file '" + a.Path + "'")
	}))
	c := p.dial(t)
	info, err := client.Call(soon(t), c, qga.GuestInfo, qga.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Version != qga.ProtocolVersion || len(info.SupportedCommands) != 6 {
		t.Errorf("the agent says %+v", info)
	}
	checkSeek(t, c, -7)

	_, err = client.Call(soon(t), c, qga.FileOpen, qga.FileOpenArgs{Path: "/ü"})
	if e, ok := errors.AsType[*qga.Error](err); !ok || e.Class != qga.GenericError {
		t.Errorf("an error reply is %#v", err)
	}
	if want := "guest-file-open: failed to open file '/ü'"; err.Error() != want {
		t.Errorf("the error is %q, want %q", err, want)
	}
	_, err = client.Call(soon(t), c, qga.GetTime, qga.Empty{})
	if e, ok := errors.AsType[*qga.Error](err); !ok || e.Class != qga.CommandNotFound {
		t.Errorf("a command the agent lacks: %v", err)
	}
	checkSeek(t, c, 7)
	if n := p.accepted.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
}

func TestUnreachable(t *testing.T) {
	path := socket(t)
	err := ping(soon(t), newClient(t, client.Unix(path)))
	if !errors.Is(err, client.ErrUnreachable) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a socket: %v", err)
	}
	if !strings.Contains(err.Error(), path) {
		t.Errorf("the error does not name the socket: %v", err)
	}
}

func TestNoAnswer(t *testing.T) {
	p := fake(t, func(_ int, s *script) { s.hold() })
	c := p.dial(t)
	if err := patiently(func(limit time.Duration) error {
		c.SyncTimeout = limit
		err := ping(context.Background(), c)
		if !errors.Is(err, client.ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("nobody answers, and the error is %w", err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}

	// The caller's own limit comes first.
	c.SyncTimeout = 0
	if err := patiently(func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := ping(ctx, c); !errors.Is(err, client.ErrNoAnswer) {
			return fmt.Errorf("nobody answers, and the error is %w", err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}

	// Who does not want to wait says nothing about the agent.
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := ping(ctx, c); !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrNoAnswer) {
		t.Errorf("cancelled, and the error is %v", err)
	}
}

// patiently has time run out for try, with more and more of it until try has nothing
// to complain about: on a busy machine little time may be up before it gets to the
// point. It returns the last complaint.
func patiently(try func(limit time.Duration) error) (err error) {
	for _, limit := range []time.Duration{30 * time.Millisecond, 500 * time.Millisecond, 10 * time.Second} {
		if err = try(limit); err == nil {
			break
		}
	}
	return err
}

func TestHungUpOnSync(t *testing.T) {
	p := fake(t, func(_ int, s *script) { s.syncID() })
	err := ping(soon(t), p.dial(t))
	if !errors.Is(err, client.ErrNoAnswer) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the connection was closed, and the error is %v", err)
	}
}

func TestMonitor(t *testing.T) {
	p := fake(t, func(_ int, s *script) {
		s.send(`{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}` + "\r\n")
		s.hold()
	})
	err := ping(soon(t), p.dial(t))
	if !errors.Is(err, client.ErrProtocol) || !errors.Is(err, client.ErrNoAnswer) || !strings.Contains(err.Error(), "monitor") {
		t.Errorf("asking the monitor: %v", err)
	}
}

// TestStale has the channel full of what is left over when the client comes.
func TestStale(t *testing.T) {
	for name, stale := range map[string]string{
		"nothing":           "",
		"replies":           "{\"return\": {}}\n{\"return\": 12}\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"x\"}}\n",
		"another's sync":    "\xff{\"return\": 1}\n",
		"half a reply":      `{"return": {"count": 3, "buf-b64": "AAA`,
		"half a list":       `{"return": [[[{"name": "a", `,
		"an open escape":    `{"return": "\`,
		"the end of one":    `AAA=", "eof": false}}` + "\n",
		"a console":         "[    1.2] virtio: 'it''s\" up }}]\r\nlogin: ",
		"scalars":           "1 true \"text\" [] ",
		"a long half reply": `{"return": "` + strings.Repeat("A", 3<<20),
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 1 << 30} {
				if size == 1 && len(stale) > 1000 {
					continue
				}
				p := fake(t, func(_ int, s *script) {
					id, ok := s.syncID()
					if !ok {
						return
					}
					reply, _ := json.Marshal(map[string]int64{"return": id})
					b := append([]byte(stale+"\xff"), append(reply, '\n')...)
					for len(b) > 0 {
						n := min(size, len(b))
						_, _ = s.conn.Write(b[:n])
						b = b[n:]
					}
					if s.expect(`{"execute": "guest-get-host-name"}`) {
						s.send(`{"return": {"host-name": "me"}}` + "\n")
					}
					s.hold()
				})
				r, err := client.Call(soon(t), p.dial(t), qga.GetHostName, qga.Empty{})
				if err != nil || r.HostName != "me" {
					t.Errorf("pieces of %d: %+v, %v", size, r, err)
				}
			}
		})
	}
}

func TestGarbledReply(t *testing.T) {
	for _, reply := range []string{
		"hello\n", "\xff\n", `{"return": {]}}`, "[]\n", `"text"`, "{}\n", `{"error": 1}`, `{"return": {"host-name": 5}}`,
	} {
		t.Run(reply, func(t *testing.T) {
			p := fake(t, func(_ int, s *script) {
				if s.sync() && s.line() != "" {
					s.send("%s", reply)
				}
				s.sync() // not for the one with the wrong type, which is in step
				if s.line() != "" {
					s.send(`{"return": {}}` + "\n")
				}
				s.hold()
			})
			c := p.dial(t)
			_, err := client.Call(soon(t), c, qga.GetHostName, qga.Empty{})
			if !errors.Is(err, client.ErrProtocol) {
				t.Errorf("the error is %v", err)
			}
			if _, ok := errors.AsType[*qga.Error](err); ok {
				t.Errorf("it passes for the agent's: %v", err)
			}
			if strings.Contains(reply, "host-name") {
				return
			}
			if err := ping(soon(t), c); err != nil {
				t.Errorf("the call after it: %v", err)
			}
			if n := p.accepted.Load(); n != 1 {
				t.Errorf("%d connections were made, want 1", n)
			}
		})
	}
}

// TestExtraReply has somebody else's reply come behind ours: the next call must
// not take the one after it for its own.
func TestExtraReply(t *testing.T) {
	p := fake(t, func(_ int, s *script) {
		for s.sync() && s.expect(`{"execute": "guest-ping"}`) {
			s.send(`{"return": {}}` + "\n" + `{"return": {}}` + "\n" + `{"return": 3}` + "\n")
		}
	})
	c := p.dial(t)
	for range 3 {
		if err := ping(soon(t), c); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnnouncement has the reply after something that is none.
func TestAnnouncement(t *testing.T) {
	p := fake(t, func(_ int, s *script) {
		if s.sync() && s.expect(`{"execute": "guest-ping"}`) {
			s.send(`{"event": "X", "data": {}}` + "\n" + `{"return": {}}` + "\n")
		}
		s.hold()
	})
	if err := ping(soon(t), p.dial(t)); err != nil {
		t.Error(err)
	}
}

func TestLateReply(t *testing.T) {
	let := make(chan struct{})
	p := real(t, seek, agent.Handle(qga.GetHostName, func(context.Context, qga.Empty) (qga.HostName, error) {
		<-let
		return qga.HostName{HostName: "late"}, nil
	}))
	c := p.dial(t)
	checkSeek(t, c, 1)

	if err := patiently(func(limit time.Duration) error {
		c.Timeout = limit
		_, err := client.Call(context.Background(), c, qga.GetHostName, qga.Empty{})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrNoAnswer) {
			return fmt.Errorf("the time-out is %w", err)
		}
		if want := "guest-get-host-name: timed out waiting for the reply"; err.Error() != want {
			return fmt.Errorf("the error is %q, want %q", err, want)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	// As long as the agent is busy it does not answer.
	if err := patiently(func(limit time.Duration) error {
		c.Timeout = limit
		if err := ping(context.Background(), c); !errors.Is(err, client.ErrNoAnswer) {
			return fmt.Errorf("the agent is busy, and the error is %w", err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	close(let)
	for i := range int64(3) {
		checkSeek(t, c, i)
	}
	if n := p.accepted.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
}

// TestWithoutDeadlines is TestLateReply on a stream that can only be closed.
func TestWithoutDeadlines(t *testing.T) {
	let := make(chan struct{})
	p := real(t, seek, agent.Handle(qga.GetHostName, func(context.Context, qga.Empty) (qga.HostName, error) {
		<-let
		return qga.HostName{HostName: "late"}, nil
	}))
	c := newClient(t, func(ctx context.Context) (io.ReadWriteCloser, error) {
		conn, err := client.Unix(p.path)(ctx)
		return struct{ io.ReadWriteCloser }{conn}, err
	})
	if err := patiently(func(limit time.Duration) error {
		c.Timeout = limit
		_, err := client.Call(context.Background(), c, qga.GetHostName, qga.Empty{})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnreachable) {
			return fmt.Errorf("the time-out is %w", err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	close(let)
	checkSeek(t, c, 1)
	if n := p.accepted.Load(); n != 2 {
		t.Errorf("%d connections were made, want 2", n)
	}
}

// TestRestart has the agent restarted while nobody calls: nobody notices.
func TestRestart(t *testing.T) {
	var current atomic.Pointer[script]
	p := fake(t, func(n int, s *script) {
		current.Store(s)
		s.sync()
		for s.expect(`{"execute": "guest-ping"}`) {
			s.send(`{"return": {}}` + "\n")
			if n < 3 {
				return // and the connection is closed
			}
		}
	})
	c := p.dial(t)
	for n := range int32(3) {
		if err := ping(soon(t), c); err != nil {
			t.Fatal(err)
		}
		if n < 2 {
			waitClosed(t, current.Load().conn)
		}
		if got := p.accepted.Load(); got != n+1 {
			t.Errorf("%d connections were made, want %d", got, n+1)
		}
	}
}

func waitClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if err := conn.SetDeadline(time.Time{}); err != nil {
			return
		}
	}
	t.Fatal("the connection stays open")
}

// TestLost has the agent go when it has a request: that must not be sent again.
func TestLost(t *testing.T) {
	p := fake(t, func(n int, s *script) {
		s.sync()
		s.expect(`{"execute": "guest-ping"}`)
		if n > 1 {
			s.send(`{"return": {}}` + "\n")
			s.hold()
		}
		s.send(`{"return": `)
	})
	c := p.dial(t)
	if err := ping(soon(t), c); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, client.ErrNoAnswer) {
		t.Errorf("the agent went, and the error is %v", err)
	}
	if n := p.accepted.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
	if err := ping(soon(t), c); err != nil {
		t.Errorf("the agent is back: %v", err)
	}
}

func TestConcurrent(t *testing.T) {
	c := real(t, seek).dial(t)
	var callers sync.WaitGroup
	for g := range int64(16) {
		callers.Go(func() {
			for i := range int64(100) {
				if i%10 == 5 {
					// Somebody who gives up at once spoils nothing.
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.Int64N(100_000)))
					_, _ = client.Call(ctx, c, qga.FileSeek, qga.FileSeekArgs{Offset: -1})
					cancel()
				}
				checkSeek(t, c, g<<32+i)
			}
		})
	}
	callers.Wait()
}

// TestTurn gives up waiting for another call.
func TestTurn(t *testing.T) {
	p := fake(t, func(_ int, s *script) { s.hold() })
	c := p.dial(t)
	var first sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	first.Go(func() { _ = ping(ctx, c) })
	defer first.Wait()
	defer cancel()
	for p.accepted.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	short, cancelShort := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancelShort()
	err := ping(short, c)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "calls before it") {
		t.Errorf("the error is %v", err)
	}
}

func TestLargeReply(t *testing.T) {
	data := make([]byte, qga.FileReadMax)
	rand.NewChaCha8([32]byte{}).Read(data)
	c := real(t, seek, agent.Handle(qga.FileRead, func(_ context.Context, a qga.FileReadArgs) (qga.FileReadResult, error) {
		d := data[:*a.Count]
		return qga.FileReadResult{Count: int64(len(d)), Data: d}, nil
	})).dial(t)
	read := func(count int64) []byte {
		r, err := client.Call(soon(t), c, qga.FileRead, qga.FileReadArgs{Count: &count})
		if err != nil || r.Count != count {
			t.Fatalf("reading %d bytes: %d, %v", count, r.Count, err)
		}
		return r.Data
	}
	small := read(100)
	large := read(qga.FileReadMax)
	// What has been returned must be the caller's, whatever comes next.
	read(2 << 20)
	checkSeek(t, c, 1)
	if !bytes.Equal(small, data[:100]) || !bytes.Equal(large, data) {
		t.Error("the data are not what was sent")
	}
}

// A gate is a connection whose other end stops reading while it is shut.
type gate struct {
	net.Conn
	shut sync.RWMutex
}

func (g *gate) Read(b []byte) (int, error) {
	g.shut.RLock()
	defer g.shut.RUnlock()
	return g.Conn.Read(b)
}

// TestCancelWrite gives up a request in the middle of its being sent.
func TestCancelWrite(t *testing.T) {
	var g atomic.Pointer[gate]
	a := newAgent(seek)
	p := listen(t, socket(t), func(_ int, conn net.Conn) {
		g.Store(&gate{Conn: conn})
		_ = a.Serve(context.Background(), g.Load())
	})
	c := p.dial(t)
	checkSeek(t, c, 1)

	shut := make(chan struct{})
	go func() {
		defer close(shut)
		g.Load().shut.Lock() // when the read that waits has got something
	}()
	for g.Load().shut.TryRLock() {
		g.Load().shut.RUnlock()
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-shut // the request has begun to arrive
		time.Sleep(50 * time.Millisecond)
		cancel()
	}()
	began := time.Now()
	_, err := client.Call(ctx, c, qga.FileWrite, qga.FileWriteArgs{Data: make([]byte, 8<<20)})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "sending the request") {
		t.Errorf("cancelled, and the error is %v", err)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("cancelling took %v", d)
	}
	<-shut
	g.Load().shut.Unlock()
	checkSeek(t, c, 2)
	if n := p.accepted.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
}

func TestSilent(t *testing.T) {
	const request = `{"execute": "guest-shutdown", "arguments": {}}`
	for name, tc := range map[string]struct {
		script func(*script)
		wait   time.Duration
		want   string
	}{
		"the guest goes down": {func(*script) {}, time.Minute, ""},
		"nothing happens":     {func(s *script) { s.hold() }, 20 * time.Millisecond, ""},
		"it fails": {
			func(s *script) {
				s.send(`{"error": {"class": "GenericError", "desc": "no"}}` + "\n")
				s.hold()
			}, time.Minute, "guest-shutdown: no",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := fake(t, func(_ int, s *script) {
				if s.sync() && s.expect(request) {
					tc.script(s)
				}
			})
			c := p.dial(t)
			c.SilentWait = tc.wait
			_, err := client.Call(soon(t), c, qga.Shutdown, qga.ShutdownArgs{})
			if got := text(err); got != tc.want {
				t.Errorf("the error is %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("no time to see", func(t *testing.T) {
		p := fake(t, func(_ int, s *script) {
			s.sync()
			s.hold()
		})
		c := p.dial(t)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_, err := client.Call(ctx, c, qga.Shutdown, qga.ShutdownArgs{})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestCallRaw(t *testing.T) {
	c := real(t, seek).dial(t)
	ctx := soon(t)
	r, err := c.CallRaw(ctx, "guest-file-seek", json.RawMessage("{\n \"handle\" : 1,\n\"offset\":5, \"whence\":\"cur\"}"))
	if err != nil {
		t.Fatal(err)
	}
	equalJSON(t, r, `{"eof": false, "position": 5}`)
	r, err = c.CallRaw(ctx, "guest-ping", nil)
	if err != nil {
		t.Fatal(err)
	}
	equalJSON(t, r, `{}`)

	_, err = c.CallRaw(ctx, "no-such-command", json.RawMessage(`{}`))
	if e, ok := errors.AsType[*qga.Error](err); !ok || e.Class != qga.CommandNotFound {
		t.Errorf("an unknown command: %v", err)
	}
	for _, args := range []string{"", "[]", "null", "{", `{"a": 1} {}`} {
		if _, err := c.CallRaw(ctx, "guest-ping", json.RawMessage(args)); err == nil || !strings.Contains(err.Error(), "not a JSON object") {
			t.Errorf("the arguments %q: %v", args, err)
		}
	}
	checkSeek(t, c, 1)
}

func TestClose(t *testing.T) {
	p := fake(t, func(_ int, s *script) {
		s.sync()
		s.hold()
	})
	c := p.dial(t)
	failed := make(chan error)
	go func() { failed <- ping(context.Background(), c) }()
	for p.accepted.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the call in progress: %v", err)
	}
	if err := ping(context.Background(), c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a call after it: %v", err)
	}
	if n := p.accepted.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
}

func BenchmarkPing(b *testing.B) {
	here, there := net.Pipe()
	a := newAgent()
	go func() { _ = a.Serve(context.Background(), there) }()
	c := client.New(func(context.Context) (io.ReadWriteCloser, error) { return here, nil })
	defer c.Close()
	for b.Loop() {
		if err := ping(context.Background(), c); err != nil {
			b.Fatal(err)
		}
	}
}
