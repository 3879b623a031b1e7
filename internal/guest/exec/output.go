//go:build unix

package exec

import "io"

const (
	// streamMax is how much of a stream is kept. It is part of the protocol.
	streamMax = 16 << 20
	// Output is kept in chunks that double from the first size to the last.
	// Both are multiples of three, so that the chunks' base64 joins.
	firstChunk = 3 << 10
	lastChunk  = 192 << 10
)

// A stream is what is kept of one output of a program.
type stream struct {
	chunks    [][]byte // all full, but for the last
	size      int
	truncated bool // there was more
}

// any reports whether there was anything at all.
func (s *stream) any() bool { return s != nil && (s.size > 0 || s.truncated) }

// fill reads r to its end, and keeps as much as it may: streamMax, or less if
// reserve says no to so many more bytes.
func (s *stream) fill(r io.Reader, reserve func(n int) bool) error {
	var chunk []byte
	for s.size < streamMax {
		if len(chunk) == cap(chunk) {
			size := min(max(2*cap(chunk), firstChunk), lastChunk, streamMax-s.size)
			if !reserve(size) {
				break
			}
			chunk = make([]byte, 0, size)
			s.chunks = append(s.chunks, chunk)
		}
		n, err := r.Read(chunk[len(chunk):cap(chunk)])
		chunk = chunk[:len(chunk)+n]
		s.chunks[len(s.chunks)-1] = chunk
		s.size += n
		if err != nil {
			return err
		}
	}
	more, err := discard(r)
	s.truncated = more
	return err
}

// discard reads r to its end. It reports whether there was anything.
func discard(r io.Reader) (more bool, err error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		more = more || n > 0
		if err != nil {
			return more, err
		}
	}
}

// trim gives back room of the last chunk that is not worth keeping, and
// returns how much.
func (s *stream) trim() int {
	if len(s.chunks) == 0 {
		return 0
	}
	last := &s.chunks[len(s.chunks)-1]
	spare := cap(*last) - len(*last)
	if spare < len(*last)/4 {
		return 0
	}
	*last = append(make([]byte, 0, len(*last)), *last...)
	return spare
}
