package wire

import (
	stdbase64 "encoding/base64"
	"slices"

	"github.com/segmentio/asm/base64"

	"github.com/bellhop-vm/bellhop/qga"
)

// The library's codec works on 32 and more characters at a time where the CPU
// can, and is the standard library's elsewhere; at one character at a time
// base64 alone would take longer than all the rest of a large transfer.

// errBase64 is the protocol's text for data that is not base64.
var errBase64 = qga.Failure("Base64 data contains invalid characters")

// base64Piece is how many characters are decoded at a time: what turns out not
// to be base64 before its end has to be looked at again.
const base64Piece = 64 << 10

// decodeGroups decodes src to dst, which is at least as long, and returns the
// data. It accepts whole groups of four characters and nothing else, so that
// the data tell the text.
func decodeGroups(dst, src []byte) (data []byte, ok bool) {
	n, err := base64.StdEncoding.Decode(dst, src)
	return dst[:n], err == nil && n == len(src)/4*3
}

// appendBase64 appends data in base64.
//
// The library's first load begins four bytes before its source, but masks these
// out. Emulated processors have been seen to fault all the same where there is no
// memory, so the beginning is left to the standard library.
func appendBase64(dst, data []byte) []byte {
	const beginning = 6
	n := base64.StdEncoding.EncodedLen(len(data))
	dst = slices.Grow(dst, n)
	text := dst[len(dst) : len(dst)+n]
	if len(data) > beginning {
		stdbase64.StdEncoding.Encode(text, data[:beginning])
		text, data = text[beginning/3*4:], data[beginning:]
	}
	base64.StdEncoding.Encode(text, data)
	return dst[:len(dst)+n]
}

// appendPacked appends the text of which data is the beginning, decoded.
func appendPacked(dst, data, rest []byte) []byte {
	return append(appendBase64(dst, data), rest...)
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

// allSextets reports whether each character of b stands for six bits.
func allSextets(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return sextet[c] >= pad })
}

// decodeBase64 decodes b in place and returns the data. It accepts what the C
// agent accepts: line feeds, padding in odd places, an incomplete last group.
// It is made for what the Reader did not pack.
func decodeBase64(b []byte) ([]byte, error) {
	var group [4]byte
	n, have := 0, 0
	for _, c := range b {
		s := sextet[c]
		if s == invalid {
			return nil, errBase64
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
		b[n] = byte(bits >> 16)
		n++
		if group[2] != pad {
			b[n] = byte(bits >> 8)
			n++
		}
		if group[3] != pad {
			b[n] = byte(bits)
			n++
		}
	}
	return b[:n], nil
}
