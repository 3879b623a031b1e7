package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// patience bounds every wait.
const patience = time.Minute

func silent() *logging.Logger { return logging.New(logging.Discard, logging.Discard, false) }

// converse serves one client, sends what it has to say and returns the replies.
func converse(t *testing.T, a *Agent, request string) string {
	t.Helper()
	var out strings.Builder
	err := a.Serve(context.Background(), &script{strings.NewReader(request), &out})
	if !errors.Is(err, io.EOF) {
		t.Errorf("the session ended with %v", err)
	}
	return out.String()
}

type script struct {
	io.Reader
	io.Writer
}

func (script) Close() error { return nil }

func TestServe(t *testing.T) {
	var opened []string
	a := New(silent(), nil,
		Handle(qga.FileOpen, func(_ context.Context, args qga.FileOpenArgs) (qga.Handle, error) {
			opened = append(opened, args.Path)
			if args.Path == "" {
				return 0, errors.New("plain error")
			}
			return 7, nil
		}),
		Handle(qga.Shutdown, func(_ context.Context, args qga.ShutdownArgs) (qga.Empty, error) {
			if args.Mode != nil {
				return qga.Empty{}, &qga.Error{Class: qga.GenericError, Desc: "no"}
			}
			return qga.Empty{}, nil
		}),
		Handle(qga.FileClose, func(context.Context, qga.HandleArgs) (qga.Empty, error) { panic("oh") }),
		HandleStream(qga.FileRead, func(_ context.Context, _ qga.FileReadArgs, w *wire.Writer) error {
			w.Raw(`{"half": `)
			return errors.New("broke off")
		}),
	)
	for _, tt := range []struct{ in, want string }{
		{`{"execute":"guest-ping"}{"execute":"guest-sync","arguments":{"id":2},"id":[]}`, "{\"return\": {}}\n{\"return\": 2, \"id\": []}\n"},
		{`{"execute":"guest-sync-delimited","arguments":{"id":2}}`, "\xff{\"return\": 2}\n"},
		{`{"execute":"guest-sync-delimited"}{"execute":"guest-ping"}`, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Parameter 'id' is missing\"}}\n{\"return\": {}}\n"},
		{`{"execute":"nope","id":1}`, "{\"id\": 1, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command nope has not been found\"}}\n"},
		{`{"execute":"guest-file-open","arguments":{"path":"x"}}`, "{\"return\": 7}\n"},
		{`{"execute":"guest-file-open","arguments":{"path":""}}`, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"plain error\"}}\n"},
		// A silent command answers only on failure, whatever its id.
		{`{"execute":"guest-shutdown","id":1}{"execute":"guest-ping"}`, "{\"return\": {}}\n"},
		{`{"execute":"guest-shutdown","arguments":{"mode":"x"}}`, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n"},
		// A panic is its caller's problem only.
		{`{"execute":"guest-file-close","arguments":{"handle":1}}{"execute":"guest-ping"}`, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"internal error in guest-file-close\"}}\n{\"return\": {}}\n"},
		{`{"execute":"guest-file-read","arguments":{"handle":1}}`, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"broke off\"}}\n"},
	} {
		if got := converse(t, a, tt.in); got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.in, got, tt.want)
		}
	}
	if want := "[x ]"; fmt.Sprint(opened) != want {
		t.Errorf("opened %q, want %q", opened, want)
	}
}

func TestRegisterTwice(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a command given twice went unnoticed")
		}
	}()
	New(silent(), nil, Handle(qga.Ping, func(context.Context, qga.Empty) (qga.Empty, error) { return qga.Empty{}, nil }))
}

func TestGates(t *testing.T) {
	var frozen, due atomic.Bool
	a := New(silent(), []Gate{
		FrozenGate(frozen.Load, due.Load),
		ListGate([]string{"guest-ping", "guest-sync", "guest-file-open"}, []string{"guest-sync"}),
	}, Handle(qga.FileOpen, func(context.Context, qga.FileOpenArgs) (qga.Handle, error) { return 1, nil }))

	for _, tt := range []struct {
		frozen, due bool
		enabled     string
	}{
		{false, false, "guest-ping guest-file-open"},
		// While frozen what is safe runs in spite of the lists, and nothing else.
		{true, true, "guest-sync-delimited guest-sync guest-ping guest-info"},
		// Thawed behind the host's back: it has to find that out.
		{false, true, "guest-sync-delimited guest-sync guest-ping guest-info guest-file-open"},
	} {
		frozen.Store(tt.frozen)
		due.Store(tt.due)
		info, err := a.info(context.Background(), qga.Empty{})
		if err != nil {
			t.Fatal(err)
		}
		var enabled []string
		for _, c := range info.SupportedCommands {
			if c.Enabled {
				enabled = append(enabled, c.Name)
			}
			// What guest-info says is what happens.
			reply := converse(t, a, `{"execute":"`+c.Name+`","arguments":{"no-such-member":1}}`)
			want := "Command " + c.Name + " has been disabled: the command is not allowed"
			if strings.Contains(reply, want) == c.Enabled {
				t.Errorf("%+v: %s, enabled %v: %s", tt, c.Name, c.Enabled, reply)
			}
		}
		if got := strings.Join(enabled, " "); got != tt.enabled {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}

// pipes is a channel whose clients come through net.Pipe.
type pipes chan net.Conn

func (p pipes) Accept(ctx context.Context) (io.ReadWriteCloser, error) {
	select {
	case c := <-p:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p <- theirs
	return ours
}

// TestClients shows that a command that takes its time holds up its own client
// only, that replies before it are not kept back, and that the agent ends in
// spite of it.
func TestClients(t *testing.T) {
	before := runtime.NumGoroutine()
	release := make(chan struct{})
	a := New(silent(), nil, Handle(qga.FileOpen, func(ctx context.Context, _ qga.FileOpenArgs) (qga.Handle, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return 1, ctx.Err()
	}))
	ch := make(pipes)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Listen(ctx, ch) }()

	slow, quick := ch.dial(), ch.dial()
	say := func(c net.Conn, text string) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(r *bufio.Reader, want string) {
		t.Helper()
		if got, err := r.ReadString('\n'); got != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	slowReader, quickReader := bufio.NewReader(slow), bufio.NewReader(quick)
	say(slow, `{"execute":"guest-sync","arguments":{"id":1}}{"execute":"guest-file-open","arguments":{"path":"x"}}{"execute":"guest-ping"}`)
	hear(slowReader, "{\"return\": 1}\n")
	say(quick, `{"execute":"guest-ping"}`)
	hear(quickReader, "{\"return\": {}}\n")
	close(release)
	hear(slowReader, "{\"return\": 1}\n")
	hear(slowReader, "{\"return\": {}}\n")

	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Listen: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Listen does not end")
	}
	if _, err := slowReader.ReadByte(); err == nil {
		t.Error("the client was not sent away")
	}
	// One waits for peace.
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if runtime.NumGoroutine() <= before {
			return
		}
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// TestMemoryGoesBack sends something large and waits until the session is quiet.
func TestMemoryGoesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the session to be quiet")
	}
	a := New(silent(), nil)
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(context.Background(), theirs) }()
	r := bufio.NewReader(ours)
	const size = 16 << 20
	go fmt.Fprintf(ours, `{"execute":"guest-ping","id":"%s"}`, strings.Repeat("x", size))
	if n, err := io.CopyN(io.Discard, r, size); err != nil {
		t.Fatal(n, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	var m runtime.MemStats
	for {
		runtime.ReadMemStats(&m)
		if m.HeapAlloc < size/2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of heap are kept", m.HeapAlloc)
		}
		time.Sleep(quiet / 10)
	}
	// It is still there.
	go io.WriteString(ours, `{"execute":"guest-ping"}`)
	if line, err := r.ReadString('\n'); line != "{\"return\": {}}\n" {
		t.Errorf("got %q, %v", line, err)
	}
	ours.Close()
	<-ended
}
