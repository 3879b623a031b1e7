package wire

import (
	"unicode/utf16"
	"unicode/utf8"
)

// unescape decodes the text of a string in place: escapes become what they
// stand for, a NUL becomes C0 80 (the text may end up where NUL ends it), and
// everything must be UTF-8. It returns the new length, or what is wrong; quote
// is the character behind the text.
func unescape(b []byte, quote byte) (n int, text string) {
	for i := 0; i < len(b); {
		c := b[i]
		switch {
		case c == '\\':
			used, r, ok := escape(b[i:])
			if !ok {
				if b[i+1] != 'u' {
					return 0, "invalid escape sequence in string"
				}
				shown := string(b[i : i+used])
				if used < len(`\u1234`) {
					shown += string(quote)
				}
				return 0, shown + " is not a valid Unicode character"
			}
			i += used
			n += putRune(b[n:], r)
		case c < utf8.RuneSelf:
			b[n] = c
			n++
			i++
		case c == 0xC0 && i+1 < len(b) && b[i+1] == 0x80:
			b[n], b[n+1] = 0xC0, 0x80
			n += 2
			i += 2
		default:
			r, size := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && size == 1 || noncharacter(r) {
				return 0, "invalid UTF-8 sequence in string"
			}
			n += copy(b[n:], b[i:i+size])
			i += size
		}
	}
	return n, ""
}

// escape decodes the escape sequence at the beginning of b. When it is not
// valid, used says how much of it is shown to the user.
func escape(b []byte) (used int, r rune, ok bool) {
	switch b[1] {
	case '"', '\'', '\\', '/':
		return 2, rune(b[1]), true
	case 'b':
		return 2, '\b', true
	case 'f':
		return 2, '\f', true
	case 'n':
		return 2, '\n', true
	case 'r':
		return 2, '\r', true
	case 't':
		return 2, '\t', true
	case 'u':
	default:
		return 2, 0, false
	}
	used = min(6, len(b))
	r, ok = hex4(b[2:used])
	if !ok || !utf16.IsSurrogate(r) {
		return used, r, ok && !noncharacter(r)
	}
	if len(b) < 12 || b[6] != '\\' || b[7] != 'u' {
		return used, 0, false
	}
	low, ok := hex4(b[8:12])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return used, 0, false
	}
	return 12, r, !noncharacter(r)
}

func hex4(b []byte) (rune, bool) {
	if len(b) != 4 {
		return 0, false
	}
	var r rune
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// putRune writes r, which is never longer than the escape that it replaces.
func putRune(b []byte, r rune) int {
	if r == 0 {
		b[0], b[1] = 0xC0, 0x80
		return 2
	}
	return utf8.EncodeRune(b, r)
}

// noncharacter reports whether Unicode reserves r for internal use; the C
// agent takes these for malformed.
func noncharacter(r rune) bool {
	return 0xFDD0 <= r && r <= 0xFDEF || r&0xFFFE == 0xFFFE
}
