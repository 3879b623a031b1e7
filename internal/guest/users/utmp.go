package users

import (
	"bytes"
	"encoding/binary"
	"runtime"
)

// A layout says where things are in a record of utmp(5).
type layout struct {
	size int
	// wide times have two words of 64 bits each. The others have two of 32, of
	// which the first is read without a sign: nobody logged in before 1970, but
	// somebody will after 2038.
	wide bool
	time int
}

// Types of records, at 0.
const (
	runLevel    = 1 // the first
	userProcess = 7 // somebody is logged in
	accounting  = 9 // the last
)

// Fields that are where they are in every layout.
const (
	nameAt   = 44
	nameSize = 32
)

// maxSeconds bounds a time that is one.
const maxSeconds = 1 << 40

var (
	// narrow is the layout of 32-bit systems, and of the 64-bit ones whose
	// programs shall share the file with 32-bit ones.
	narrow = layout{size: 384, time: 340}
	// wide is the layout of 64-bit systems without such a past.
	wide = layout{size: 400, time: 344, wide: true}
)

// layoutOf returns the layout of a file of so many bytes. It is the one that
// comes out even; that way a 32-bit agent is right on a 64-bit system.
func layoutOf(size int) layout {
	usual, other := narrow, wide
	switch runtime.GOARCH {
	case "arm64", "s390x", "loong64":
		usual, other = wide, narrow
	}
	if size%usual.size != 0 && size%other.size == 0 {
		return other
	}
	return usual
}

// parseUtmp returns the logins on record, in the order of the records, and whether
// there is a record of anything. One that is cut off is none, and so is one that nobody
// can have written.
func parseUtmp(data []byte, l layout) (logins []login, known bool) {
	order := binary.NativeEndian
	for ; len(data) >= l.size; data = data[l.size:] {
		kind := order.Uint16(data)
		// A name that fills its field has no NUL behind it.
		name, _, _ := bytes.Cut(data[nameAt:nameAt+nameSize], []byte{0})
		var seconds, micros uint64
		if l.wide {
			seconds, micros = order.Uint64(data[l.time:]), order.Uint64(data[l.time+8:])
		} else {
			seconds, micros = uint64(order.Uint32(data[l.time:])), uint64(order.Uint32(data[l.time+4:]))
		}
		if kind < runLevel || kind > accounting || !isName(string(name)) || seconds > maxSeconds || micros >= 1e6 {
			continue
		}
		known = true
		if kind == userProcess && len(name) > 0 {
			logins = append(logins, login{string(name), int64(seconds*1e6 + micros)})
		}
	}
	return logins, known
}
