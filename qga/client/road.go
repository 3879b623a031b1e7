package client

import (
	"context"
	"io"
	"net"
)

// A Road is a way to an agent: it makes a connection to it. The error need not
// say that this failed, but where.
//
// A connection that has a SetDeadline method can be interrupted without loss;
// any other is closed when a call runs out of time, and Close has to end a Read
// and a Write that wait.
type Road func(ctx context.Context) (io.ReadWriteCloser, error)

// Unix is the road through a unix socket: the one that QEMU listens on for the
// guest's port, or one that an agent listens on itself.
func Unix(path string) Road {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}
