package wire

import (
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/bellhop-vm/bellhop/qga"
)

// An encoder writes a Go value of one type.
type encoder func(w *Writer, v reflect.Value)

// An Encoder writes values of one type. Its zero value is no use: call
// EncoderOf.
type Encoder struct{ encode func() encoder }

// EncoderOf returns the Encoder of the type. The work of understanding the
// type is done when it is first needed: an agent has many commands and is
// asked a few.
func EncoderOf(t reflect.Type) Encoder {
	return Encoder{sync.OnceValue(func() encoder { return encoderOf(t) })}
}

// Encode writes v.
func (e Encoder) Encode(w *Writer, v reflect.Value) { e.encode()(w, v) }

// A member is one member of an object as the fields of a struct define it.
type member struct {
	name     string
	index    []int
	typ      reflect.Type // without the pointer of an optional member
	optional bool
}

// members returns the members of the struct type in the order of declaration.
// The members of an embedded struct are its own.
func members(t reflect.Type) []member {
	var list []member
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for _, m := range members(f.Type) {
				m.index = append([]int{i}, m.index...)
				list = append(list, m)
			}
			continue
		}
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			panic(fmt.Sprintf("wire: %v.%s has no name on the wire", t, f.Name))
		}
		m := member{name: name, index: f.Index, typ: f.Type}
		m.optional = option == "omitempty"
		if f.Type.Kind() == reflect.Pointer {
			m.typ = f.Type.Elem()
		}
		list = append(list, m)
	}
	return list
}

func encoderOf(t reflect.Type) encoder {
	if t.Implements(reflect.TypeFor[qga.Alternate]()) {
		return encodeAlternate
	}
	switch t.Kind() {
	case reflect.Bool:
		return func(w *Writer, v reflect.Value) { w.Bool(v.Bool()) }
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(w *Writer, v reflect.Value) { w.Int(v.Int()) }
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(w *Writer, v reflect.Value) { w.Uint(v.Uint()) }
	case reflect.Float64:
		return func(w *Writer, v reflect.Value) { w.Float(v.Float()) }
	case reflect.String:
		return func(w *Writer, v reflect.Value) { w.String(v.String()) }
	case reflect.Pointer:
		elem := encoderOf(t.Elem())
		return func(w *Writer, v reflect.Value) { elem(w, v.Elem()) }
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return func(w *Writer, v reflect.Value) {
				w.Raw(`"`)
				w.Base64(v.Bytes())
				w.Raw(`"`)
			}
		}
		return encodeList(encoderOf(t.Elem()))
	case reflect.Struct:
		return encodeStruct(t)
	}
	panic("wire: no way to encode " + t.String())
}

func encodeAlternate(w *Writer, v reflect.Value) {
	switch x := v.Interface().(qga.Alternate).WireValue().(type) {
	case int64:
		w.Int(x)
	case bool:
		w.Bool(x)
	case string:
		w.String(x)
	}
}

func encodeList(elem encoder) encoder {
	return func(w *Writer, v reflect.Value) {
		w.Raw("[")
		for i := range v.Len() {
			if i > 0 {
				w.Raw(", ")
			}
			elem(w, v.Index(i))
			if len(w.buf) >= flushAt {
				w.pass()
			}
		}
		w.Raw("]")
	}
}

func encodeStruct(t reflect.Type) encoder {
	type field struct {
		member
		prefix string
		encode encoder
	}
	list := members(t)
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = m.name
	}
	fields := make([]field, 0, len(list))
	for _, i := range dictionaryOrder(names) {
		m := list[i]
		ft := t.FieldByIndex(m.index).Type
		fields = append(fields, field{m, `"` + m.name + `": `, encoderOf(ft)})
	}
	return func(w *Writer, v reflect.Value) {
		w.Raw("{")
		first := true
		for i := range fields {
			f := &fields[i]
			x := v.FieldByIndex(f.index)
			if f.optional && x.IsZero() {
				continue
			}
			if !first {
				w.Raw(", ")
			}
			first = false
			w.Raw(f.prefix)
			f.encode(w, x)
		}
		w.Raw("}")
	}
}
