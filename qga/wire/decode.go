package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"

	"github.com/bellhop-vm/bellhop/qga"
)

// A Decoder turns values into Go values of one type.
type Decoder struct {
	decode func() decoder
	strict bool
	// empty says that the type has no members at all.
	empty bool
}

// ArgsDecoderOf returns the Decoder of a command's arguments. It is strict:
// whatever the protocol does not declare is an error, and its descriptions are
// the protocol's.
func ArgsDecoderOf(t reflect.Type) Decoder {
	return decoderFor(t, true)
}

// ResultDecoderOf returns the Decoder of a command's result. It accepts
// results of agents older and newer than this protocol: what is missing stays
// zero, what is unknown is skipped. Binary members are the caller's to keep.
func ResultDecoderOf(t reflect.Type) Decoder {
	return decoderFor(t, false)
}

func decoderFor(t reflect.Type, strict bool) Decoder {
	return Decoder{
		decode: sync.OnceValue(func() decoder { return decoderOf(t) }),
		strict: strict,
		empty:  t.Kind() == reflect.Struct && t.NumField() == 0,
	}
}

// Decode decodes v to dst, and v is of no use afterwards. Binary arguments
// refer to the Reader's memory: they are valid as long as v was.
func (d Decoder) Decode(v Value, dst reflect.Value) error {
	if d.empty && v.Kind() == Object && v.end() == v.at+headSize {
		return nil // guest-ping and many others
	}
	s := decodeState{strict: d.strict}
	if err := d.decode()(&s, v, dst, nil); err != nil {
		return err
	}
	// Only when everything else has proved to be in order, as the C agent
	// does it.
	for _, b := range s.binary {
		data, err := b.text.data()
		if err != nil {
			return err
		}
		if !d.strict {
			data = bytes.Clone(data)
		}
		b.dst.SetBytes(data)
	}
	return nil
}

// A path is the way from a command's arguments to a member, for error texts.
type path struct {
	parent *path
	name   string
	index  int // of an element of the list called name; -1 for a member
}

func (p *path) String() string {
	switch {
	case p.index >= 0:
		return p.parent.String() + "[" + strconv.Itoa(p.index) + "]"
	case p.parent != nil:
		return p.parent.String() + "." + p.name
	default:
		return p.name
	}
}

type decodeState struct {
	strict bool
	binary []binaryMember
}

// A binaryMember is one whose base64 is yet to be decoded.
type binaryMember struct {
	text Value
	dst  reflect.Value
}

type decoder func(s *decodeState, v Value, dst reflect.Value, p *path) error

func badType(p *path, expected string) error {
	if p == nil {
		return qga.Failure("Invalid parameter type, expected: " + expected)
	}
	return qga.Failure("Invalid parameter type for '" + p.String() + "', expected: " + expected)
}

func decoderOf(t reflect.Type) decoder {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[qga.Alternate]()) {
		return decodeAlternate
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[qga.Enum]()) {
		return decodeEnum
	}
	switch t.Kind() {
	case reflect.Bool:
		return decodeBool
	case reflect.Int64, reflect.Int32:
		return decodeInt
	case reflect.Uint64, reflect.Uint32, reflect.Uint16:
		return decodeUint
	case reflect.Float64:
		return decodeFloat
	case reflect.String:
		return decodeString
	case reflect.Pointer:
		return decodePointer(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return decodeBinary
		}
		return decodeList(t)
	case reflect.Struct:
		return decodeStruct(t)
	}
	panic("wire: no way to decode " + t.String())
}

func decodeBool(_ *decodeState, v Value, dst reflect.Value, p *path) error {
	if k := v.Kind(); k != True && k != False {
		return badType(p, "boolean")
	}
	dst.SetBool(v.Kind() == True)
	return nil
}

func decodeInt(_ *decodeState, v Value, dst reflect.Value, p *path) error {
	if v.Kind() != Int || dst.OverflowInt(v.Int()) {
		return badType(p, "integer")
	}
	dst.SetInt(v.Int())
	return nil
}

func decodeUint(_ *decodeState, v Value, dst reflect.Value, p *path) error {
	var u uint64
	switch k := v.Kind(); {
	case k == Uint:
		u = v.Uint()
	case k == Int && v.Int() >= 0:
		u = uint64(v.Int())
	default:
		return qga.Failure(fmt.Sprintf("Parameter '%v' expects %v", p, dst.Kind()))
	}
	if dst.OverflowUint(u) {
		return qga.Failure(fmt.Sprintf("Parameter '%v' expects %v", p, dst.Kind()))
	}
	dst.SetUint(u)
	return nil
}

func decodeFloat(_ *decodeState, v Value, dst reflect.Value, p *path) error {
	switch v.Kind() {
	case Int:
		dst.SetFloat(float64(v.Int()))
	case Uint:
		dst.SetFloat(float64(v.Uint()))
	case Float:
		dst.SetFloat(v.Float())
	default:
		return badType(p, "number")
	}
	return nil
}

func decodeString(_ *decodeState, v Value, dst reflect.Value, p *path) error {
	if v.Kind() != String {
		return badType(p, "string")
	}
	dst.SetString(string(v.Bytes()))
	return nil
}

// decodeBinary leaves the decoding to Decode.
func decodeBinary(s *decodeState, v Value, dst reflect.Value, p *path) error {
	if v.Kind() != String {
		return badType(p, "string")
	}
	s.binary = append(s.binary, binaryMember{v, dst})
	return nil
}

func decodeEnum(s *decodeState, v Value, dst reflect.Value, p *path) error {
	if v.Kind() != String {
		return badType(p, "string")
	}
	text := string(v.Bytes())
	if s.strict && !slices.Contains(dst.Interface().(qga.Enum).EnumValues(), text) {
		return badEnum(p, text)
	}
	dst.SetString(text)
	return nil
}

func badEnum(p *path, text string) error {
	return qga.Failure("Parameter '" + p.String() + "' does not accept value '" + text + "'")
}

func decodeAlternate(_ *decodeState, v Value, dst reflect.Value, p *path) error {
	alternate := dst.Addr().Interface()
	switch k := v.Kind(); k {
	case String:
		if a, ok := alternate.(interface{ FromString(string) bool }); ok {
			if text := string(v.Bytes()); !a.FromString(text) {
				return badEnum(p, text)
			}
			return nil
		}
	case True, False:
		if a, ok := alternate.(interface{ FromBool(bool) }); ok {
			a.FromBool(k == True)
			return nil
		}
	case Int, Uint, Float:
		if a, ok := alternate.(interface{ FromInt(int64) }); ok {
			if k != Int {
				return badType(p, "integer")
			}
			a.FromInt(v.Int())
			return nil
		}
	}
	return badType(p, alternate.(qga.Alternate).AlternateName())
}

func decodePointer(t reflect.Type) decoder {
	elem := decoderOf(t)
	return func(s *decodeState, v Value, dst reflect.Value, p *path) error {
		dst.Set(reflect.New(t))
		return elem(s, v, dst.Elem(), p)
	}
}

func decodeList(t reflect.Type) decoder {
	elem := decoderOf(t.Elem())
	return func(s *decodeState, v Value, dst reflect.Value, p *path) error {
		if v.Kind() != List {
			return badType(p, "array")
		}
		n := 0
		for range v.Elements {
			n++
		}
		list := reflect.MakeSlice(t, n, n)
		i := 0
		for e := range v.Elements {
			if err := elem(s, e, list.Index(i), &path{p, "", i}); err != nil {
				return err
			}
			i++
		}
		dst.Set(list)
		return nil
	}
}

func decodeStruct(t reflect.Type) decoder {
	type field struct {
		member
		decode decoder
	}
	list := members(t)
	fields := make([]field, len(list))
	names := make([]string, len(list))
	for i, m := range list {
		fields[i] = field{m, decoderOf(t.FieldByIndex(m.index).Type)}
		names[i] = m.name
	}
	return func(s *decodeState, v Value, dst reflect.Value, p *path) error {
		if v.Kind() != Object {
			return badType(p, "object")
		}
		for i := range fields {
			f := &fields[i]
			m, ok := v.Member(f.name)
			switch {
			case ok:
				at := &path{p, f.name, -1}
				if err := f.decode(s, m, dst.FieldByIndex(f.index), at); err != nil {
					return err
				}
			case s.strict && !f.optional:
				return qga.Failure("Parameter '" + (&path{p, f.name, -1}).String() + "' is missing")
			}
		}
		if !s.strict {
			return nil
		}
		if name, ok := undeclared(v, names); ok {
			return qga.Failure("Parameter '" + (&path{p, name, -1}).String() + "' is unexpected")
		}
		return nil
	}
}

// undeclared returns the name of a member of v that is none of the declared; of
// several the one that the C agent names.
func undeclared(v Value, declared []string) (name string, found bool) {
	for m := range v.Members {
		name := m.name()
		found = found || !slices.ContainsFunc(declared, func(d string) bool { return d == string(name) })
	}
	if !found {
		return "", false
	}
	var names, ordered []string
	for m := range v.Members {
		names = append(names, string(m.name()))
	}
	for _, i := range dictionaryOrder(names) {
		ordered = append(ordered, names[i])
	}
	return unexpected(ordered, declared)
}
