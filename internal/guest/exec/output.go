//go:build unix

package exec

import (
	"io"

	"github.com/bellhop-vm/bellhop/internal/buffer"
)

const (
	// streamMax is how much of a stream is kept. It is part of the protocol.
	streamMax = 16 << 20
	// Room for output is reserved in steps that double from the first size to
	// the last. What outgrows that gets memory that is no matter of the garbage
	// collector's, which would look after it over and over on the way.
	firstStep  = 3 << 10
	lastStep   = 192 << 10
	largeSpace = 1 << 20
)

// A stream is what is kept of one output of a program.
type stream struct {
	data      []byte
	reserved  int  // bytes; data may not get any longer
	truncated bool // there was more

	// replies counts those that are being written from data. If it has been
	// forgotten, the last of them releases it.
	replies   int
	forgotten bool
}

// any reports whether there was anything at all.
func (s *stream) any() bool { return s != nil && (len(s.data) > 0 || s.truncated) }

// fill reads r to its end, and keeps as much as it may: streamMax, or less if
// reserve says no to so many more bytes.
func (s *stream) fill(r io.Reader, reserve func(n int) bool) error {
	for len(s.data) < streamMax {
		if len(s.data) == s.reserved {
			n := min(max(s.reserved, firstStep), lastStep, streamMax-s.reserved)
			if !reserve(n) {
				break
			}
			s.reserved += n
			if !s.enlarge() {
				break
			}
		}
		n, err := r.Read(s.data[len(s.data):s.reserved])
		s.data = s.data[:len(s.data)+n]
		if err != nil {
			return err
		}
	}
	more, err := discard(r)
	s.truncated = more
	return err
}

// enlarge makes room for what has been reserved.
func (s *stream) enlarge() (ok bool) {
	need := s.reserved - len(s.data)
	switch {
	case cap(s.data) >= s.reserved:
		return true
	case need == lastStep:
		need = largeSpace
	}
	s.data, ok = buffer.Grow(s.data, need)
	return ok
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

// trim gives back what has been reserved in vain, if that is worth it, and
// returns how much. Of large memory what was not written to is none yet.
func (s *stream) trim() int {
	spare := s.reserved - len(s.data)
	if cap(s.data) < largeSpace {
		if spare < len(s.data)/4 {
			return 0
		}
		s.data = append(make([]byte, 0, len(s.data)), s.data...)
	}
	s.reserved -= spare
	return spare
}

// hold keeps the data for a reply, until release.
func (s *stream) hold() {
	if s != nil {
		s.replies++
	}
}

func (s *stream) release() {
	if s != nil {
		s.replies--
		s.free()
	}
}

// forget gives the data back as soon as no reply needs it any more.
func (s *stream) forget() {
	if s != nil {
		s.forgotten = true
		s.free()
	}
}

func (s *stream) free() {
	if s.forgotten && s.replies == 0 {
		buffer.Release(s.data)
		s.data = nil
	}
}
