package qga

// A Class is the class of an error reply. Clients tell failures apart by it;
// the description is for people.
type Class string

// The classes that an agent sends.
const (
	// GenericError is every failure but the next.
	GenericError Class = "GenericError"
	// CommandNotFound is the answer to a command that does not exist and, in
	// spite of its name, to one that is disabled.
	CommandNotFound Class = "CommandNotFound"
)

// An Error is an error reply.
type Error struct {
	Class Class
	Desc  string
}

// Error returns the description; the class is seldom of use to a person.
func (e *Error) Error() string { return e.Desc }

// Failure returns an error reply of class GenericError.
func Failure(desc string) *Error { return &Error{Class: GenericError, Desc: desc} }
