package wire

import (
	"encoding/binary"
	"math"
)

// A Kind is the type of a JSON value. Numbers have three: an integer that an
// int64 holds, a larger one that a uint64 holds, and everything else.
type Kind byte

// The kinds of a value. They are also the tags on the tape.
const (
	Null   Kind = 'n'
	True   Kind = 't'
	False  Kind = 'f'
	Int    Kind = 'i'
	Uint   Kind = 'u'
	Float  Kind = 'd'
	String Kind = 's'
	List   Kind = '['
	Object Kind = '{'
)

// A Value is one parsed JSON value. It refers to its Reader's memory and is
// valid until the Reader's next call.
//
// The value lies on a tape, without pointers: a tag byte, then
//
//	i u d    8 bytes
//	s        4 bytes length, the text in UTF-8 (a NUL as C0 80); with the
//	         highest bit of the length set, the data of so much of the text's
//	         beginning as is base64, the rest of the text, and 4 bytes length
//	         of that
//	[ {      4 bytes offset of the end, then the elements; in an object each
//	         member is an s and a value
//
// One piece of memory holds a value of any size, so a request of 64 MiB costs
// 64 MiB, is given back in one go and is no work for the garbage collector.
type Value struct {
	tape []byte
	at   int
}

// EmptyObject is an Object without members.
var EmptyObject = Value{[]byte{byte(Object), headSize, 0, 0, 0}, 0}

const (
	scalarSize = 1 + 8
	headSize   = 1 + 4

	packedFlag = 1 << 31
	tailSize   = 4
)

// Kind returns the value's kind.
func (v Value) Kind() Kind { return Kind(v.tape[v.at]) }

// Int is the number of an Int.
func (v Value) Int() int64 { return int64(v.word()) }

// Uint is the number of an Uint.
func (v Value) Uint() uint64 { return v.word() }

// Float is the number of a Float.
func (v Value) Float() float64 { return math.Float64frombits(v.word()) }

func (v Value) word() uint64 { return binary.LittleEndian.Uint64(v.tape[v.at+1:]) }

// Bytes is the text of a String, if it is not packed in the Reader's memory.
func (v Value) Bytes() []byte {
	if v.packed() {
		data, rest := v.unpack()
		return appendPacked(nil, data, rest)
	}
	return v.name()
}

// name is the text of a String that is not packed, as names never are.
func (v Value) name() []byte {
	n := int(v.length())
	return v.tape[v.at+headSize : v.at+headSize+n : v.at+headSize+n]
}

func (v Value) packed() bool { return v.tape[v.at+headSize-1]&(packedFlag>>24) != 0 }

// data decodes the text of a String from base64, in place: the value is of no
// use afterwards.
func (v Value) data() ([]byte, error) {
	data, rest := v.unpack()
	decoded, err := decodeBase64(rest)
	if err != nil || data == nil {
		return decoded, err
	}
	return data[:len(data)+len(decoded)], nil
}

// unpack returns of a String the data of the part of its text that is packed,
// nil if it is not, and the rest of the text, which lies behind it.
func (v Value) unpack() (data, rest []byte) {
	b := v.name()
	if !v.packed() {
		return nil, b
	}
	end := len(b) - tailSize
	packed := end - int(binary.LittleEndian.Uint32(b[end:]))
	return b[:packed], b[packed:end]
}

// length is the length of a String on the tape, without its head.
func (v Value) length() uint32 {
	return binary.LittleEndian.Uint32(v.tape[v.at+1:]) &^ packedFlag
}

// end is the offset behind the value.
func (v Value) end() int {
	switch v.Kind() {
	case Int, Uint, Float:
		return v.at + scalarSize
	case String:
		return v.at + headSize + int(v.length())
	case List, Object:
		return int(binary.LittleEndian.Uint32(v.tape[v.at+1:]))
	default:
		return v.at + 1
	}
}

// Elements yields the elements of a List.
func (v Value) Elements(yield func(Value) bool) {
	end := v.end()
	for at := v.at + headSize; at < end; {
		e := Value{v.tape, at}
		if !yield(e) {
			return
		}
		at = e.end()
	}
}

// Members yields the members of an Object in the order in which they came.
func (v Value) Members(yield func(name, value Value) bool) {
	end := v.end()
	for at := v.at + headSize; at < end; {
		name := Value{v.tape, at}
		value := Value{v.tape, name.end()}
		if !yield(name, value) {
			return
		}
		at = value.end()
	}
}

// Member returns the member of an Object that has the given name.
func (v Value) Member(name string) (Value, bool) {
	for n, value := range v.Members {
		if string(n.name()) == name {
			return value, true
		}
	}
	return Value{}, false
}
