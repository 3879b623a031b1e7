package host

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
)

// printable returns s with everything escaped that a terminal might obey: the
// text may come from a guest, whose owner need not be trusted.
func printable(s string) string {
	harmless := func(r rune) bool { return unicode.IsPrint(r) || r == '\n' || r == '\t' }
	if strings.IndexFunc(s, func(r rune) bool { return !harmless(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if harmless(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	return b.String()
}

// pretty lays out JSON as a Client returns it, which is ASCII, for people: with
// indents, and with the letters that its escapes stand for, except those of
// control characters.
func pretty(compact []byte) string {
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		return string(compact)
	}
	s := b.String()
	var out strings.Builder
	out.Grow(len(s))
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			break
		}
		out.WriteString(s[:i])
		s = s[i:]
		r, n := letter(s)
		if r != 0 && unicode.IsPrint(r) && r != '"' && r != '\\' {
			out.WriteRune(r)
		} else {
			out.WriteString(s[:n])
		}
		s = s[n:]
	}
	out.WriteString(s)
	return out.String()
}

// letter returns what the escape at the beginning of s stands for, if it is one
// with a code, and its length.
func letter(s string) (r rune, n int) {
	unit := func(s string) rune {
		if len(s) < 6 || s[:2] != `\u` {
			return 0
		}
		u, err := strconv.ParseUint(s[2:6], 16, 16)
		if err != nil {
			return 0
		}
		return rune(u)
	}
	r = unit(s)
	switch {
	case r == 0 && strings.HasPrefix(s, `\u`):
		return 0, 6
	case r == 0:
		return 0, 2
	case utf16.IsSurrogate(r):
		return utf16.DecodeRune(r, unit(s[6:])), 12
	}
	return r, 6
}
