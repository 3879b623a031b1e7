// Package qga is the QEMU Guest Agent protocol as Go: for each command one
// descriptor and the types of its arguments and its result. It does no I/O;
// the agent (internal/agent) and the client (qga/client) both import it, so
// that neither can drift from the other.
//
// # Conventions of the types
//
// A struct's fields stand in the order in which the protocol's schema declares
// them: it is the order in which arguments are checked. The member name is in
// the json tag. A pointer, or ",omitempty" on a slice, marks an optional
// member: absent is nil. A since tag names the QEMU release that added a
// member to a command that was older. A []byte is base64 on the wire.
//
// The names and the meaning of the commands are those of the QEMU Guest Agent
// Protocol Reference; the descriptions are ours.
package qga

import "reflect"

// ProtocolVersion is the QEMU release whose protocol is implemented and whose
// agent was the reference for behaviour. guest-info reports it as the agent's
// version, because clients compare it with the release a feature came with.
const ProtocolVersion = "11.1.3"

// A System is a set of the operating systems that have a command.
type System uint8

// The systems on which the protocol's reference agent has commands.
const (
	Linux System = 1 << iota
	Windows
	FreeBSD

	AllSystems = Linux | Windows | FreeBSD
)

// An Info is what is known of a command besides its types.
type Info struct {
	// Name is the command's name on the wire.
	Name string
	// Since is the QEMU release that introduced it.
	Since string
	// Systems is where the reference agent offers it.
	Systems System
	// Silent commands send no reply when they succeed: the guest is about to
	// go down. guest-info says so in success-response.
	Silent bool
	// WhileFrozen commands run even while file systems are frozen.
	WhileFrozen bool
}

// A Command is the descriptor of one command: A are its arguments, R is its
// result. Empty stands for none.
type Command[A, R any] struct{ Info }

// Empty is the arguments of a command without any, and the result of one that
// returns nothing but success: an empty object on the wire.
type Empty struct{}

// A Descriptor is a Command of whatever types.
type Descriptor interface {
	Describe() Info
	// ArgsType and ResultType are A and R.
	ArgsType() reflect.Type
	ResultType() reflect.Type
}

// Describe returns what is known of the command.
func (c Command[A, R]) Describe() Info { return c.Info }

// ArgsType is the type of the command's arguments.
func (c Command[A, R]) ArgsType() reflect.Type { return reflect.TypeFor[A]() }

// ResultType is the type of the command's result.
func (c Command[A, R]) ResultType() reflect.Type { return reflect.TypeFor[R]() }
