package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// serve has the agent serve a client for the time of the test.
func serve(t *testing.T, a *Agent) net.Conn {
	t.Helper()
	ch := make(pipes)
	go a.Listen(t.Context(), ch)
	c := ch.dial()
	t.Cleanup(func() { c.Close() })
	return c
}

// TestBurst sends many requests in one go, some of which take longer than replies
// may be held back, some of which fail, some of which write their own reply.
func TestBurst(t *testing.T) {
	a := New(silent(), nil,
		Handle(qga.FileClose, func(_ context.Context, args qga.HandleArgs) (qga.Empty, error) {
			time.Sleep(time.Duration(args.Handle) * time.Microsecond)
			return qga.Empty{}, nil
		}),
		Handle(qga.FileFlush, func(context.Context, qga.HandleArgs) (qga.Empty, error) { panic("oh") }),
		HandleStream(qga.FileRead, func(_ context.Context, args qga.FileReadArgs, w *wire.Writer) error {
			w.String(strings.Repeat("x", int(args.Handle)))
			return nil
		}),
	)
	c := serve(t, a)

	var requests, want strings.Builder
	ask := func(request, reply string) {
		fmt.Fprintf(&requests, request+"\n", requests.Len())
		fmt.Fprintln(&want, reply)
	}
	for i := range 100 {
		ask(`{"execute":"guest-ping","id":%d}`, fmt.Sprintf(`{"return": {}, "id": %d}`, requests.Len()))
		ask(fmt.Sprintf(`{"execute":"guest-file-close","arguments":{"handle":%d},"id":%%d}`, i*50),
			fmt.Sprintf(`{"return": {}, "id": %d}`, requests.Len()))
		ask(`{"execute":"guest-file-flush","arguments":{"handle":1},"id":%d}`,
			fmt.Sprintf(`{"id": %d, "error": {"class": "GenericError", "desc": "internal error in guest-file-flush"}}`, requests.Len()))
		if i%10 == 0 {
			ask(fmt.Sprintf(`{"execute":"guest-file-read","arguments":{"handle":%d},"id":%%d}`, i*10000),
				fmt.Sprintf(`{"return": "%s", "id": %d}`, strings.Repeat("x", i*10000), requests.Len()))
		}
	}
	go io.WriteString(c, requests.String())
	_ = c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	for line := range strings.Lines(want.String()) {
		if got, err := r.ReadString('\n'); got != line {
			t.Fatalf("got %.200q, %v, want %.200q", got, err, line)
		}
	}
}

// TestHeldBack shows that the reply to the first of two commands comes while the
// second one is carried out, time and again.
func TestHeldBack(t *testing.T) {
	arrived := make(chan struct{})
	a := New(silent(), nil, Handle(qga.FileClose, func(context.Context, qga.HandleArgs) (qga.Empty, error) {
		select {
		case <-arrived:
		case <-time.After(patience):
		}
		return qga.Empty{}, nil
	}))
	c := serve(t, a)

	const times = 5
	go io.WriteString(c, strings.Repeat(`{"execute":"guest-ping"}{"execute":"guest-file-close","arguments":{"handle":1}}`, times))
	_ = c.SetDeadline(time.Now().Add(patience / 2))
	r := bufio.NewReader(c)
	for range times {
		if got, err := r.ReadString('\n'); got != "{\"return\": {}}\n" {
			t.Fatalf("got %q, %v: it waits for the command behind it", got, err)
		}
		arrived <- struct{}{}
		if got, err := r.ReadString('\n'); got != "{\"return\": {}}\n" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

// TestLent has a write given up whose data are in use a little longer, while its
// client does not take replies.
func TestLent(t *testing.T) {
	given := 0
	a := New(silent(), nil, Handle(qga.FileWrite, func(context.Context, qga.FileWriteArgs) (qga.FileWriteResult, error) {
		if given++; given == 1 {
			return qga.FileWriteResult{}, nil // its memory is there for the second one
		}
		time.Sleep(10 * holdBack) // for the timer to wait for the client
		until := make(chan struct{})
		time.AfterFunc(10*holdBack, func() { close(until) })
		return qga.FileWriteResult{}, &InUse{Err: errors.New("late"), Until: until}
	}))
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(t.Context(), ours) }()
	_ = theirs.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(theirs)
	write := func(data, id string) string {
		return `{"execute":"guest-file-write","arguments":{"handle":1,"buf-b64":"` + data + `"},"id":` + id + `}`
	}
	want := func(line string) {
		t.Helper()
		if got, err := r.ReadString('\n'); got != line+"\n" {
			t.Fatalf("got %q, %v, want %q", got, err, line)
		}
	}
	go io.WriteString(theirs, write(strings.Repeat("QUJD", 1<<20), "1"))
	want(`{"return": {"count": 0, "eof": false}, "id": 1}`)
	go io.WriteString(theirs, `{"execute":"guest-ping"}`+write("QUJD", `"abc"`)+`{"execute":"guest-ping"}`)
	time.Sleep(50 * holdBack)
	want(`{"return": {}}`)
	want(`{"id": "abc", "error": {"class": "GenericError", "desc": "late"}}`)
	want(`{"return": {}}`)
	theirs.Close()
	<-ended
}

// deaf is a client that has gone after its request.
type deaf struct{ io.Reader }

func (deaf) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (deaf) Close() error              { return nil }

// TestShutdownOfDeaf does what a host wants that does not wait for replies.
func TestShutdownOfDeaf(t *testing.T) {
	called := false
	a := New(silent(), nil, Handle(qga.Shutdown, func(context.Context, qga.ShutdownArgs) (qga.Empty, error) {
		called = true
		return qga.Empty{}, nil
	}))
	if err := a.Serve(t.Context(), deaf{strings.NewReader(`{"execute":"guest-ping"}{"execute":"guest-shutdown"}`)}); err == nil {
		t.Error("the session goes on")
	}
	if !called {
		t.Error("the guest was not shut down")
	}
}
