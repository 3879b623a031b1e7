package wire

import (
	"io"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/segmentio/asm/ascii"

	"github.com/bellhop-vm/bellhop/qga"
)

const (
	// flushAt is the amount of text at which a Writer passes on what it has,
	// and with which it encodes large data.
	flushAt = 128 << 10
	// idleText is how large a Writer's buffer may be and yet be kept for ever.
	idleText = 4 << 10

	// sentinel marks the reply to guest-sync-delimited: it is never part of
	// JSON.
	sentinel = "\xff"
)

// A Writer writes messages to a stream, each as one line in the C agent's
// format: ASCII only, a blank after each comma and colon.
//
// It collects text until Flush, or until there is a lot. A failed write is
// remembered, and reported by Flush.
type Writer struct {
	dst io.Writer
	buf []byte
	// begun is where in buf the message being written begins, or the next
	// one will; -1 when a part of it has been passed on.
	begun int
	err   error
}

// NewWriter returns a Writer to the stream dst.
func NewWriter(dst io.Writer) *Writer {
	return &Writer{dst: dst, buf: make([]byte, 0, idleText)}
}

// BeginReturn begins a successful reply; its value follows, then EndReturn.
func (w *Writer) BeginReturn(delimited bool) {
	if delimited {
		w.buf = append(w.buf, sentinel...)
	}
	w.Raw(`{"return": `)
}

// EndReturn ends a successful reply. It echoes the request's id, if any.
func (w *Writer) EndReturn(id Value, hasID bool) {
	if hasID {
		w.Raw(`, "id": `)
		w.Value(id)
	}
	w.Raw("}")
	w.EndMessage()
}

// Error writes an error reply, in the place of a reply that has been begun.
// It returns false when some of that is already on its way.
func (w *Writer) Error(id Value, hasID bool, err *qga.Error) bool {
	if !w.Abort() {
		return false
	}
	w.Raw("{")
	if hasID {
		w.Raw(`"id": `)
		w.Value(id)
		w.Raw(", ")
	}
	w.Raw(`"error": {"class": `)
	w.String(string(err.Class))
	w.Raw(`, "desc": `)
	w.String(err.Desc)
	w.Raw("}}")
	w.EndMessage()
	return true
}

// Request writes a client's request. args writes the value of its arguments;
// nil stands for none.
func (w *Writer) Request(command string, args func(*Writer)) {
	w.Raw(`{"execute": `)
	w.String(command)
	if args != nil {
		w.Raw(`, "arguments": `)
		args(w)
	}
	w.Raw("}")
	w.EndMessage()
}

// Abort drops the message that has been begun. It returns false when some of
// it is already on its way.
func (w *Writer) Abort() bool {
	if w.begun < 0 {
		return false
	}
	w.buf = w.buf[:w.begun]
	return true
}

// EndMessage ends the line of a message.
func (w *Writer) EndMessage() {
	w.Raw("\n")
	if len(w.buf) >= flushAt {
		_ = w.Flush() // remembered
	}
	w.begun = len(w.buf)
}

// Flush passes on all text. It returns the error of this or an earlier write.
// It is not to be called in the middle of a message.
func (w *Writer) Flush() error {
	if len(w.buf) > 0 && w.err == nil {
		_, w.err = w.dst.Write(w.buf)
	}
	w.buf = w.buf[:0]
	w.begun = 0
	return w.err
}

// Pending reports whether there is text that Flush would pass on.
func (w *Writer) Pending() bool { return len(w.buf) > 0 }

// pass passes on a part of a message.
func (w *Writer) pass() {
	_ = w.Flush() // remembered
	w.begun = -1
}

// Large reports whether the Writer holds memory that Trim would give back.
func (w *Writer) Large() bool { return cap(w.buf) > idleText }

// Trim gives back the memory that large messages needed.
func (w *Writer) Trim() {
	if len(w.buf) == 0 {
		w.buf = make([]byte, 0, idleText)
	}
}

// Raw appends text that is JSON already.
func (w *Writer) Raw(s string) { w.buf = append(w.buf, s...) }

// Int appends a number.
func (w *Writer) Int(i int64) { w.buf = strconv.AppendInt(w.buf, i, 10) }

// Uint appends a number.
func (w *Writer) Uint(u uint64) { w.buf = strconv.AppendUint(w.buf, u, 10) }

// Float appends a number with 17 significant digits, enough to tell any two
// doubles apart.
func (w *Writer) Float(f float64) { w.buf = strconv.AppendFloat(w.buf, f, 'g', 17, 64) }

// Bool appends true or false.
func (w *Writer) Bool(b bool) { w.buf = strconv.AppendBool(w.buf, b) }

// Base64 appends data in base64 without quotes. When a string is made of
// several pieces, the length of each but the last is a multiple of three. Long
// data is passed on on the way: a command that may yet fail has to find out
// before.
func (w *Writer) Base64(data []byte) {
	const piece = flushAt / 4 * 3
	for len(data) > 0 {
		p := data[:min(piece, len(data))]
		data = data[len(p):]
		w.buf = appendBase64(w.buf, p)
		if len(w.buf) >= flushAt {
			w.pass()
		}
	}
}

// String appends a string with its quotes. Bytes that are not UTF-8 become
// U+FFFD; C0 80 is a NUL, as on the way in.
func (w *Writer) String(s string) {
	w.buf = append(w.buf, '"')
	w.buf = appendText(w.buf, s)
	w.buf = append(w.buf, '"')
}

const upperHex = "0123456789ABCDEF"

func appendText(dst []byte, s string) []byte {
	for len(s) > 0 {
		n := safe(s)
		dst = append(dst, s[:n]...)
		if s = s[n:]; s == "" {
			break
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			r, size = malformed(s)
		case noncharacter(r):
			r = utf8.RuneError
		}
		s = s[size:]
		switch r {
		case '"', '\\':
			dst = append(dst, '\\', byte(r))
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			if r > 0xFFFF {
				r -= 0x10000
				dst = appendUnit(dst, 0xD800+r>>10)
				r = 0xDC00 + r&0x3FF
			}
			dst = appendUnit(dst, r)
		}
	}
	return dst
}

func appendUnit(dst []byte, u rune) []byte {
	return append(dst, '\\', 'u',
		upperHex[u>>12&15], upperHex[u>>8&15], upperHex[u>>4&15], upperHex[u&15])
}

// malformed returns what stands for the bytes at the beginning of s, which are
// not UTF-8, and how many they are: a lead byte takes along as many
// continuation bytes as it announces, if they are there.
func malformed(s string) (r rune, size int) {
	if len(s) > 1 && s[0] == 0xC0 && s[1] == 0x80 {
		return 0, 2
	}
	announced := 0
	if lead := bits.LeadingZeros8(^s[0]); lead >= 2 && lead <= 6 {
		announced = lead - 1
	}
	size = 1
	for size <= announced && size < len(s) && s[size]&0xC0 == 0x80 {
		size++
	}
	return utf8.RuneError, size
}

// safe returns how many bytes at the beginning of s need no escape.
func safe(s string) int {
	const long = 64
	if len(s) >= long {
		// Most long texts are plain from end to end.
		if ascii.ValidPrintString(s) && strings.IndexByte(s, '"') < 0 && strings.IndexByte(s, '\\') < 0 {
			return len(s)
		}
	}
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7F || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}

// Value appends a parsed value again, in the Writer's format.
func (w *Writer) Value(v Value) {
	switch v.Kind() {
	case Null:
		w.Raw("null")
	case True:
		w.Raw("true")
	case False:
		w.Raw("false")
	case Int:
		w.Int(v.Int())
	case Uint:
		w.Uint(v.Uint())
	case Float:
		w.Float(v.Float())
	case String:
		w.String(string(v.Bytes()))
	case List:
		w.Raw("[")
		first := true
		for e := range v.Elements {
			if !first {
				w.Raw(", ")
			}
			first = false
			w.Value(e)
		}
		w.Raw("]")
	case Object:
		w.object(v)
	}
}

// AppendValue appends v to dst as a Writer writes it.
func AppendValue(dst []byte, v Value) []byte {
	w := Writer{buf: dst}
	w.Value(v)
	return w.buf
}

func (w *Writer) object(v Value) {
	var names []string
	var values []Value
	for n, m := range v.Members {
		names, values = append(names, string(n.name())), append(values, m)
	}
	w.Raw("{")
	for i, m := range dictionaryOrder(names) {
		if i > 0 {
			w.Raw(", ")
		}
		w.String(names[m])
		w.Raw(": ")
		w.Value(values[m])
	}
	w.Raw("}")
}
