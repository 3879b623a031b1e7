package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/qga"
)

// A disk is a guest's only file. Its agent is one that a client has to be
// careful with: it writes no more than it likes, and notices the end of the
// file only when nothing is left.
type disk struct {
	mu      sync.Mutex
	content []byte
	at      int
	open    int
	accepts int   // bytes a write takes at most
	full    error // what closing says
}

func (d *disk) handlers() []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.FileOpen, func(_ context.Context, a qga.FileOpenArgs) (qga.Handle, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if *a.Mode == "wb" {
				d.content = nil
			}
			d.at = 0
			d.open++
			return 1000, nil
		}),
		agent.Handle(qga.FileClose, func(_ context.Context, a qga.HandleArgs) (qga.Empty, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.open--
			return qga.Empty{}, d.full
		}),
		agent.Handle(qga.FileRead, func(_ context.Context, a qga.FileReadArgs) (qga.FileReadResult, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			data := d.content[d.at:min(d.at+int(*a.Count), len(d.content))]
			d.at += len(data)
			return qga.FileReadResult{Count: int64(len(data)), Data: data, EOF: len(data) == 0}, nil
		}),
		agent.Handle(qga.FileWrite, func(_ context.Context, a qga.FileWriteArgs) (qga.FileWriteResult, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			data := a.Data[:min(d.accepts, len(a.Data))]
			d.content = append(d.content, data...)
			return qga.FileWriteResult{Count: int64(len(data))}, nil
		}),
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestFiles(t *testing.T) {
	d := &disk{accepts: 1 << 30}
	c := real(t, d.handlers()...).dial(t)
	for _, tc := range []struct{ size, accepts int }{
		{0, 1 << 30}, {1, 1 << 30}, {10, 3}, {1 << 20, 1 << 30}, {1<<20 + 1, 1 << 30}, {5 << 20, 1 << 19},
	} {
		d.accepts = tc.accepts
		data := randomBytes(tc.size)
		if err := c.WriteFile(soon(t), "/file", data); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(d.content, data) {
			t.Errorf("%+v: what was written is not in the file", tc)
		}
		got, err := c.ReadFile(soon(t), "/file")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%+v: what was read is not in the file", tc)
		}
	}

	d.accepts = 0
	if err := c.WriteFile(soon(t), "/file", []byte("x")); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("nothing can be written, and the error is %v", err)
	}
	d.accepts, d.full = 10, errors.New("disk full")
	if err := c.WriteFile(soon(t), "/file", []byte("x")); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("the file could not be closed, and the error is %v", err)
	}
	if d.open != 0 {
		t.Errorf("%d files are left open", d.open)
	}
}

// TestFileCloses has time run out in the middle of a file.
func TestFileCloses(t *testing.T) {
	d := &disk{content: []byte("x")}
	ctx, cancel := context.WithCancel(context.Background())
	let := make(chan struct{})
	handlers := d.handlers()
	handlers[2] = agent.Handle(qga.FileRead, func(context.Context, qga.FileReadArgs) (qga.FileReadResult, error) {
		time.AfterFunc(10*time.Millisecond, func() { close(let) })
		cancel()
		<-let
		return qga.FileReadResult{}, nil
	})
	c := real(t, handlers...).dial(t)
	if _, err := c.ReadFile(ctx, "/file"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled, and the error is %v", err)
	}
	if d.open != 0 {
		t.Error("the file is left open")
	}
}

func TestExec(t *testing.T) {
	asked := 0
	c := real(t,
		agent.Handle(qga.Exec, func(_ context.Context, a qga.ExecArgs) (qga.ExecResult, error) {
			return qga.ExecResult{PID: 12}, nil
		}),
		agent.Handle(qga.ExecStatus, func(_ context.Context, a qga.ExecStatusArgs) (qga.ExecStatusResult, error) {
			asked++
			if asked < 5 {
				return qga.ExecStatusResult{}, nil
			}
			code := a.PID
			return qga.ExecStatusResult{Exited: true, ExitCode: &code, OutData: []byte("out")}, nil
		}),
	).dial(t)
	r, err := c.Exec(soon(t), qga.ExecArgs{Path: "true"})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Exited || *r.ExitCode != 12 || string(r.OutData) != "out" || asked != 5 {
		t.Errorf("after %d polls the process returned %+v", asked, r)
	}

	asked = -1 << 30
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(ctx, qga.ExecArgs{Path: "sleep"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the process runs on, and the error is %v", err)
	}
}
