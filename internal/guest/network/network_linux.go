package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/strerror"
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
func Commands(c Config) []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.NetworkGetInterfaces, c.interfaces),
		agent.Handle(qga.NetworkGetRoute, c.routes),
	}
}

func (c Config) interfaces(context.Context, qga.Empty) ([]qga.Interface, error) {
	links, addresses, err := snapshot()
	if err != nil {
		// Not what failed here, but what did in the C agent.
		return nil, fmt.Errorf("getifaddrs failed: %w", strerror.Reason(err))
	}
	return interfaces(links, addresses, c.Exclude), nil
}

// routes takes a file that is not there for a version of IP that the kernel
// does not have.
func (c Config) routes(context.Context, qga.Empty) ([]qga.Route, error) {
	routes := []qga.Route{}
	for _, source := range []struct {
		path  string
		parse func(string) []qga.Route
	}{
		{"/proc/net/route", parseRoutes4},
		{"/proc/net/ipv6_route", parseRoutes6},
	} {
		data, err := c.Root.ReadFile(source.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open(%q): %w", source.path, strerror.Reason(err))
		}
		routes = append(routes, source.parse(string(data))...)
	}
	return routes, nil
}
