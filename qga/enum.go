package qga

// An Enum is a type with a fixed set of strings. As an argument any other
// string is refused; in a result a newer agent may send values unknown here.
type Enum interface {
	// EnumValues lists the values in the order of the schema.
	EnumValues() []string
}

// An Alternate is an argument type that accepts more than one JSON type. For
// those that it accepts, its pointer has FromInt(int64), FromBool(bool) and
// FromString(string) bool; the last reports whether the string is one of its
// values, for a type with it is an Enum too.
type Alternate interface {
	// AlternateName is the type's name in the protocol's schema; an error
	// reply names it when a value has none of the accepted types.
	AlternateName() string
	// WireValue is what a client sends: an int64, a bool or a string, chosen
	// such that the oldest agents understand it.
	WireValue() any
}

// enumValues returns the values of an enum as EnumValues does.
func enumValues[E ~string](values ...E) []string {
	s := make([]string, len(values))
	for i, v := range values {
		s[i] = string(v)
	}
	return s
}
