package disks

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
)

// A System is where to look. Its zero value is the running system.
type System struct {
	// Root takes the place of the root directory.
	Root root.Dir
}

// Commands returns the commands of this package.
func Commands(s System) []agent.Handler {
	c := &commands{root: s.Root, readHealthLog: readHealthLog}
	return []agent.Handler{
		agent.Handle(qga.GetDisks, c.getDisks),
		agent.Handle(qga.GetDiskStats, c.getDiskStats),
	}
}

type commands struct {
	root          root.Dir
	readHealthLog func(node string) (*healthLog, error)
	health        stuck.Calls[string, *healthLog]
}

func (c *commands) getDisks(context.Context, qga.Empty) ([]qga.Disk, error) {
	const block = "/sys/block"
	dir, err := c.root.Open(block)
	if err != nil {
		return nil, fmt.Errorf("Can't open directory \"%s\": %w", block, strerror.Reason(err))
	}
	defer dir.Close()
	names, err := dir.Names()
	if err != nil {
		return nil, fmt.Errorf("Can't open directory \"%s\": %w", block, strerror.Reason(err))
	}
	tree := NewTree(c.root)
	list := make([]qga.Disk, 0, len(names))
	for _, name := range names {
		size, _ := dir.ReadAttribute(name + "/size")
		if size := string(bytes.TrimSpace(size)); size == "" || size == "0" {
			continue // a drive without a medium, a loop device without a file
		}
		device, ok := tree.Follow(block + "/" + name)
		if !ok {
			continue
		}
		if d, ok := tree.disk(device); ok {
			c.addHealth(tree, &d)
			list = append(list, d)
			list = append(list, tree.partitions(device, d.Name)...)
		}
	}
	return list, nil
}

// addHealth adds what an NVMe disk says of its health. One that does not answer
// in time is not asked again until it has.
func (c *commands) addHealth(t *Tree, d *qga.Disk) {
	if d.Address == nil || d.Address.BusType != qga.BusNVMe {
		return
	}
	node := c.root.Path(d.Name)
	limit, done := t.wait(patience)
	log, err := c.health.Do(node, limit, func() (*healthLog, error) { return c.readHealthLog(node) })
	done()
	if err == nil {
		d.Smart = new(log.smart())
	}
}

func (c *commands) getDiskStats(context.Context, qga.Empty) ([]qga.DiskStatsInfo, error) {
	const file = "/proc/diskstats"
	text, err := c.root.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("Could not open '%s': %w", file, strerror.Reason(err))
	}
	return parseDiskStats(string(text)), nil
}

// disk describes a whole disk. It is false for one that has no device node,
// such as one of several paths to an NVMe namespace.
func (t *Tree) disk(device string) (qga.Disk, bool) {
	u := t.uevent(device)
	if u != nil && u.node == "" {
		return qga.Disk{}, false
	}
	d := qga.Disk{Name: t.node(device)}
	if slaves, err := t.slaves(device); err == nil {
		d.Dependencies = make([]string, 0, len(slaves))
		for _, s := range slaves {
			d.Dependencies = append(d.Dependencies, t.node(s))
		}
	}
	if !virtual(device) {
		d.Address = t.address(device)
	}
	if alias := t.alias(device, u); alias != "" {
		d.Alias = &alias
	}
	return d, true
}

// partitions describes the partitions of the disk that has the device node
// whole.
func (t *Tree) partitions(device, whole string) []qga.Disk {
	names, _ := t.root.ReadDir(device)
	var list []qga.Disk
	for _, name := range names {
		number, ok := strings.CutPrefix(name, path.Base(device))
		if !ok {
			continue
		}
		if _, ok := numbered(strings.TrimPrefix(number, "p"), ""); ok {
			list = append(list, qga.Disk{
				Name:         t.node(device + "/" + name),
				Partition:    true,
				Dependencies: []string{whole},
			})
		}
	}
	return list
}

// node returns the path of a device's node. If the kernel does not tell it can
// be guessed: where a node is in a directory the kernel writes ! for /.
func (t *Tree) node(device string) string {
	if u := t.uevent(device); u != nil && u.node != "" {
		return u.node
	}
	return "/dev/" + strings.ReplaceAll(path.Base(device), "!", "/")
}

// alias returns the name that the device mapper has for a device.
func (t *Tree) alias(device string, u *uevent) string {
	if p, ok := t.properties(u); ok {
		return p.alias
	}
	if !virtual(device) {
		return ""
	}
	name, _ := t.root.ReadLine(device + "/dm/name")
	return name
}
