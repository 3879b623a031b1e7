//go:build unix

package files

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"weak"

	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

const (
	// defaultCount is the count of a read that names none.
	defaultCount = 4096
	// wholeMax is the largest read that is done before its reply begins.
	wholeMax = 1 << 20
	// pieceSize is how much of a larger read is under way at a time: small
	// enough for a processor's cache, and a multiple of three, so that each
	// piece's base64 joins the last one's.
	pieceSize = 192 << 10
)

// read reads as much as was asked for or the file has now. What was read is
// never lost: a reason to stop early that is not the end of the file is for
// the next read to find, unless there is nothing else to tell.
//
// Of a large read the beginning is on its way to the client before the end has
// been read. Its length is therefore named behind the data, not before.
func (t *Table) read(ctx context.Context, args qga.FileReadArgs, w *wire.Writer) error {
	f, err := t.find(args.Handle)
	if err != nil {
		return err
	}
	count := int64(defaultCount)
	if args.Count != nil {
		count = *args.Count
	}
	if count < 0 || count > qga.FileReadMax {
		return invalidCount(count)
	}
	if err := f.acquire(ctx); err != nil {
		return err
	}
	// A large read that is continued begins with a whole number of base64's
	// groups.
	first := count
	if count > wholeMax {
		first = wholeMax / 3 * 3
	}
	b := t.scratch.take(int(first))
	var n int64
	var late bool
	fill := func(size int64) {
		n, late, err = t.call(f, t.limit, func() (int64, error) { return f.read(b.data[:size]) }, func() {})
	}
	defer func() {
		if !late {
			t.scratch.give(b)
			f.release()
		}
	}()

	fill(first)
	if err != nil && err != io.EOF && n == 0 {
		return fmt.Errorf("failed to read file: %s", strerror.Text(err))
	}
	if err != nil || first == count {
		w.Raw(`{"count": `)
		w.Int(n)
		w.Raw(`, "buf-b64": "`)
		w.Base64(b.data[:n])
		w.Raw(`", "eof": `)
		w.Bool(err == io.EOF)
		w.Raw("}")
		return nil
	}

	w.Raw(`{"buf-b64": "`)
	w.Base64(b.data[:n])
	total := n
	for err == nil && total < count {
		fill(min(pieceSize, count-total))
		w.Base64(b.data[:n])
		total += n
	}
	w.Raw(`", "count": `)
	w.Int(total)
	w.Raw(`, "eof": `)
	w.Bool(err == io.EOF)
	w.Raw("}")
	return nil
}

// scratch keeps one buffer for the next read, until the garbage collector runs:
// an agent that is asked nothing holds no memory for it, and one that is asked
// a lot does not clear a fresh megabyte for every read.
type scratch struct {
	kept atomic.Pointer[weak.Pointer[buffer]]
}

type buffer struct{ data []byte }

// take returns a buffer of at least the given size.
func (s *scratch) take(size int) *buffer {
	if p := s.kept.Swap(nil); p != nil {
		if b := p.Value(); b != nil && len(b.data) >= size {
			return b
		}
	}
	if size > pieceSize {
		size = wholeMax
	} else if size < defaultCount {
		size = defaultCount
	}
	return &buffer{make([]byte, size)}
}

func (s *scratch) give(b *buffer) {
	p := weak.Make(b)
	s.kept.Store(&p)
}
