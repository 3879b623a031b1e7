package wire

import (
	"bytes"
	"sync"

	"github.com/segmentio/asm/base64"

	"github.com/bellhop-vm/bellhop/qga"
)

// The library's codec works on 32 and more characters at a time where the CPU
// can, and is the standard library's elsewhere; at one character at a time
// base64 alone would take longer than all the rest of a large transfer.

// errBase64 is the protocol's text for data that is not base64.
var errBase64 = qga.Failure("Base64 data contains invalid characters")

// base64Piece is how many characters are decoded at a time: little enough to
// stay in the CPU's cache on the way.
const base64Piece = 64 << 10

// decodeBuffers are what decodeBase64 decodes to on the way. The codec is
// chosen at run time, which makes the compiler put them on the heap: without a
// pool a small guest-file-write would leave 48 KiB of garbage behind.
var decodeBuffers = sync.Pool{New: func() any { return new([base64Piece / 4 * 3]byte) }}

// decodeBase64 decodes b in place and returns the data. It accepts what the C
// agent accepts: line feeds, padding in odd places, an incomplete last group.
func decodeBase64(b []byte) ([]byte, error) {
	piece := decodeBuffers.Get().(*[base64Piece / 4 * 3]byte)
	defer decodeBuffers.Put(piece)
	n := 0
	for at := 0; at < len(b); at += base64Piece {
		p := b[at:min(at+base64Piece, len(b))]
		// The codec skips carriage returns, the protocol refuses them.
		if bytes.IndexByte(p, '\r') >= 0 {
			return nil, errBase64
		}
		// There is soon enough room between what has been decoded and what
		// has not; until then the detour leaves p as it is, should it have to
		// be read again.
		dst := b[n:at]
		detour := len(dst) < len(piece)
		if detour {
			dst = piece[:]
		}
		m, err := base64.StdEncoding.Decode(dst, p)
		if err != nil {
			m, err = decodeLenient(b[n:], b[at:])
			return b[:n+m], err
		}
		if detour {
			copy(b[n:], dst[:m])
		}
		n += m
	}
	return b[:n], nil
}

const (
	pad     = 64 // '=' counts as zero bits and as a missing byte
	skipped = 65
	invalid = 66
)

var sextet = func() (t [256]byte) {
	for i := range t {
		t[i] = invalid
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = byte(i)
	}
	t['='] = pad
	t['\n'] = skipped
	return t
}()

// decodeLenient decodes src to dst, which may be the same memory or lie before.
func decodeLenient(dst, src []byte) (n int, err error) {
	var group [4]byte
	have := 0
	for _, c := range src {
		s := sextet[c]
		if s == invalid {
			return 0, errBase64
		}
		if s == skipped {
			continue
		}
		group[have] = s
		have++
		if have < len(group) {
			continue
		}
		have = 0
		bits := uint32(group[0]&63)<<18 | uint32(group[1]&63)<<12 |
			uint32(group[2]&63)<<6 | uint32(group[3]&63)
		dst[n] = byte(bits >> 16)
		n++
		if group[2] != pad {
			dst[n] = byte(bits >> 8)
			n++
		}
		if group[3] != pad {
			dst[n] = byte(bits)
			n++
		}
	}
	return n, nil
}
