package agent

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/logging"
)

// loop is a peer that sends the same bytes n times and throws replies away.
type loop struct {
	data []byte
	n    int
}

func (l *loop) Read(b []byte) (int, error) {
	if l.n <= 0 {
		return 0, io.EOF
	}
	l.n--
	return copy(b, l.data), nil
}
func (l *loop) Write(b []byte) (int, error) { return len(b), nil }
func (l *loop) Close() error                { return nil }

// BenchmarkPing is what a ping costs between two system calls.
func BenchmarkPing(b *testing.B) {
	never := func() bool { return false }
	a := New(logging.New(logging.Discard, logging.Discard, false), []Gate{FrozenGate(never, never)})
	const batch = 64
	l := &loop{data: bytes.Repeat([]byte("{\"execute\":\"guest-ping\"}\n"), batch), n: b.N/batch + 1}
	b.ReportAllocs()
	_ = a.Serve(context.Background(), l)
}
