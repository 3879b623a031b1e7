package filesystems

import (
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/disks"
	"github.com/bellhop-vm/bellhop/internal/guest/mounts"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
)

// A command waits patience in all for file systems to tell their size, and even
// if that is used up grace for each: all but the dead answer in microseconds.
const (
	patience = 2 * time.Second
	grace    = 20 * time.Millisecond
)

// A System is where to look. Its zero value is the running system.
type System struct {
	// Root takes the place of the root directory.
	Root root.Dir
	// Audit notes what the host has asked for. Nil notes nothing.
	Audit func(format string, args ...any)
}

// Commands returns the commands of this package.
func Commands(s System) []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.FSTrim, newTrimmer(s).fstrim),
		agent.Handle(qga.GetFSInfo, newCommands(s).getFSInfo),
	}
}

func newCommands(s System) *commands { return &commands{root: s.Root, statfs: statfs} }

type commands struct {
	root   root.Dir
	statfs func(path string) (unix.Statfs_t, error)
	calls  stuck.Calls[mountKey, unix.Statfs_t]
}

// A mountKey is what makes a mount another one than that which was stuck.
type mountKey struct {
	major, minor uint32
	point        string
}

// getFSInfo lists the latest mount first, as the C agent does and clients
// expect.
func (c *commands) getFSInfo(context.Context, qga.Empty) ([]qga.Filesystem, error) {
	mounted, err := mounts.List(c.root)
	if err != nil {
		return nil, err
	}
	tree := disks.NewTree(c.root)
	left := patience
	list := make([]qga.Filesystem, 0, len(mounted))
	for _, m := range slices.Backward(mounted) {
		f := qga.Filesystem{
			Mountpoint: m.Point,
			Type:       m.Type,
			Disk:       []qga.DiskAddress{},
		}
		if device, ok := tree.Path(m.Major, m.Minor); ok {
			f.Name = path.Base(device)
			devices := []string{device}
			if m.Type == "btrfs" {
				devices = tree.BtrfsMembers(device)
			}
			f.Disk = tree.Addresses(devices...)
		} else {
			f.Name = fmt.Sprintf("%d:%d", m.Major, m.Minor)
		}
		start := time.Now()
		size, err := c.calls.Do(mountKey{m.Major, m.Minor, m.Point}, max(left, grace), func() (unix.Statfs_t, error) {
			return c.statfs(c.root.Path(m.Point))
		})
		left -= time.Since(start)
		if err == nil {
			addSize(&f, &size)
		}
		list = append(list, f)
	}
	return list, nil
}

// addSize adds the sizes as df(1) has them.
func addSize(f *qga.Filesystem, s *unix.Statfs_t) {
	unit := uint64(s.Frsize)
	if unit == 0 { // a kernel of before 2.6
		unit = uint64(s.Bsize)
	}
	used := s.Blocks - s.Bfree
	f.UsedBytes = new(used * unit)
	f.TotalBytes = new((used + s.Bavail) * unit)
	f.TotalBytesPrivileged = new(s.Blocks * unit)
}

func statfs(path string) (s unix.Statfs_t, err error) {
	for {
		if err = unix.Statfs(path, &s); err != unix.EINTR {
			return s, err
		}
	}
}
