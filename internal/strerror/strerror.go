// Package strerror words errors as the C library does, because the texts are
// part of the protocol's error descriptions and of the agent's messages.
package strerror

import (
	"errors"
	"syscall"
)

// Text returns the C library's words for the error number in err, or err's own
// where it has none. Go's words for an error number are the C library's but for
// the first letter.
func Text(err error) string {
	e, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return err.Error()
	}
	s := []byte(e.Error())
	if len(s) > 0 && 'a' <= s[0] && s[0] <= 'z' {
		s[0] -= 'a' - 'A'
	}
	return string(s)
}

// Reason reduces err to what is wrong, in the words of Text: the operation and
// the file that an error of package os names are left to the caller.
func Reason(err error) error {
	e, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return err
	}
	return reason{e}
}

type reason struct{ errno syscall.Errno }

func (r reason) Error() string { return Text(r.errno) }
func (r reason) Unwrap() error { return r.errno }
