package wire

import "github.com/bellhop-vm/bellhop/qga"

// A Request is the envelope of a command.
type Request struct {
	// Command is its name, in the Reader's memory.
	Command []byte
	// Args is an Object, or has no value when there are no arguments.
	Args Value
	// ID is a value of the client's that the reply repeats.
	ID Value
	// HasArgs and HasID say whether the two are there.
	HasArgs, HasID bool
}

// Envelope takes a top-level value for a request. Where that fails, the ID
// found so far is still to be repeated.
func Envelope(v Value) (Request, error) {
	var req Request
	if v.Kind() != Object {
		return req, qga.Failure("QMP input must be a JSON object")
	}
	var execute Value
	odd, has := false, false
	for n, m := range v.Members {
		switch name := n.name(); {
		case string(name) == "execute":
			execute, has = m, true
			odd = odd || m.Kind() != String
		case string(name) == "arguments":
			req.Args, req.HasArgs = m, true
			odd = odd || m.Kind() != Object
		case string(name) == "id":
			req.ID, req.HasID = m, true
		default:
			odd = true
		}
	}
	if odd {
		return req, refuse(v)
	}
	if !has {
		return req, qga.Failure("QMP input lacks member 'execute'")
	}
	req.Command = execute.Bytes()
	return req, nil
}

// refuse says what is wrong with a request's members; of several, what the C
// agent comes upon first.
func refuse(v Value) error {
	complaint := func(name string, m Value) string {
		switch {
		case name == "execute" && m.Kind() != String:
			return "must be a string"
		case name == "arguments" && m.Kind() != Object:
			return "must be an object"
		case name == "execute", name == "arguments", name == "id":
			return ""
		}
		return "is unexpected"
	}
	name, _ := firstMember(v, func(n, m Value) bool { return complaint(string(n.name()), m) != "" })
	m, _ := v.Member(name)
	return qga.Failure("QMP input member '" + name + "' " + complaint(name, m))
}

// firstMember returns the member of v that match accepts and that comes first
// in the C agent's dictionary.
func firstMember(v Value, match func(name, value Value) bool) (name string, found bool) {
	first := buckets
	for n, m := range v.Members {
		if !match(n, m) {
			continue
		}
		text := string(n.name())
		if b := bucket(text); b <= first {
			name, first, found = text, b, true
		}
	}
	return name, found
}
