package host

import (
	"strings"

	"github.com/bellhop-vm/bellhop/qga/client"
)

// A target is an agent as the command line names it.
type target struct {
	// name is its canonical form.
	name string
	// path is that of its unix socket.
	path string
	road client.Road
}

func parseTarget(s string) (target, error) {
	path, ok := strings.CutPrefix(s, "unix:")
	if !ok && !strings.Contains(s, "/") {
		return target{}, usagef("%q is not a target: want unix:PATH", s)
	}
	if path == "" {
		return target{}, usagef("the target %q lacks a path", s)
	}
	return target{"unix:" + path, path, client.Unix(path)}, nil
}
