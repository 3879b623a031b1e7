package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
)

// A Config is where to look and what to keep silent about. Its zero value is
// the running system, all of it.
type Config struct {
	// Root is where /proc/net is read. The interfaces are always those of the
	// kernel.
	Root root.Dir
	// Exclude holds patterns, of the form of path.Match, for the names of
	// interfaces that guest-network-get-interfaces does not list, with all their
	// addresses. A pattern that is malformed, which the configuration refuses,
	// matches nothing.
	Exclude []string
}

// Commands returns the commands of this package.
func Commands(config Config) []agent.Handler {
	c := &commands{Config: config}
	return []agent.Handler{
		agent.Handle(qga.NetworkGetInterfaces, c.interfaces),
		agent.Handle(qga.NetworkGetRoute, c.routes),
	}
}

type commands struct {
	Config
	snapshots stuck.Calls[struct{}, state]
}

// A state is what the kernel says of its interfaces.
type state struct {
	links     []link
	addresses []address
}

// snapshotLimit is how long the kernel may take for that. It writes the list while it
// is asked for it, holding the lock of all changes of interfaces; and a driver whose
// device does not answer holds that, too.
const snapshotLimit = 5 * time.Second

func (c *commands) interfaces(context.Context, qga.Empty) ([]qga.Interface, error) {
	now, err := c.snapshots.Do(struct{}{}, snapshotLimit, func() (s state, err error) {
		s.links, s.addresses, err = snapshot()
		return s, err
	})
	if err == stuck.ErrStuck {
		err = unix.ETIMEDOUT
	}
	if err != nil {
		// Not what failed here, but what did in the C agent.
		return nil, fmt.Errorf("getifaddrs failed: %w", strerror.Reason(err))
	}
	return interfaces(now.links, now.addresses, c.Exclude), nil
}

// routes takes a list of IPv6 routes that is not there for a kernel without IPv6.
// There is none that has only that, so that without the other list /proc is not what
// it should be.
func (c Config) routes(context.Context, qga.Empty) ([]qga.Route, error) {
	routes := []qga.Route{}
	for _, source := range []struct {
		version int
		path    string
		parse   func(string) []qga.Route
	}{
		{4, "/proc/net/route", parseRoutes4},
		{6, "/proc/net/ipv6_route", parseRoutes6},
	} {
		data, err := c.Root.ReadFile(source.path)
		if errors.Is(err, fs.ErrNotExist) && source.version == 6 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open(%q): %w", source.path, strerror.Reason(err))
		}
		routes = append(routes, source.parse(string(data))...)
	}
	return routes, nil
}
