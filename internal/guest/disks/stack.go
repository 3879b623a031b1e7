package disks

import (
	"path"
	"strings"
)

// BuiltOn returns the devices that a virtual device builds on: the volumes of a
// device mapper, the members of a RAID. Those of a partition are the whole
// device's.
func (t *Tree) BuiltOn(device string) []string {
	list, err := t.slaves(device)
	if whole := path.Dir(device); err != nil && virtual(whole) {
		return t.BuiltOn(whole)
	}
	return list
}

// slaves returns what the kernel calls the slaves of a device, which a partition
// has none of.
func (t *Tree) slaves(device string) ([]string, error) {
	names, err := t.root.ReadDir(device + "/slaves")
	return t.followAll(device+"/slaves/", names), err
}

// BackingFile returns the file that a loop device, or a partition of one, is
// made of, as the kernel names it. It is empty for other devices.
func (t *Tree) BackingFile(device string) string {
	for ; virtual(device); device = path.Dir(device) {
		if file, err := t.root.ReadFile(device + "/loop/backing_file"); err == nil {
			return strings.TrimSuffix(string(file), "\n")
		}
	}
	return ""
}

// BtrfsMembers returns all devices of the mounted btrfs file system that device
// belongs to, itself included; device alone if the kernel knows of no others.
func (t *Tree) BtrfsMembers(device string) []string {
	if t.btrfs == nil {
		t.btrfs = t.findBtrfs()
	}
	if members, ok := t.btrfs[device]; ok {
		return members
	}
	return []string{device}
}

func (t *Tree) findBtrfs() map[string][]string {
	const base = "/sys/fs/btrfs/"
	found := make(map[string][]string)
	ids, _ := t.root.ReadDir(base)
	for _, id := range ids {
		// There are other directories as well, without devices.
		names, _ := t.root.ReadDir(base + id + "/devices")
		members := t.followAll(base+id+"/devices/", names)
		for _, d := range members {
			found[d] = members
		}
	}
	return found
}

// followAll returns where the named links in a directory lead, those that lead
// anywhere. dir ends in a slash.
func (t *Tree) followAll(dir string, names []string) []string {
	list := make([]string, 0, len(names))
	for _, name := range names {
		if d, ok := t.Follow(dir + name); ok {
			list = append(list, d)
		}
	}
	return list
}

// virtual reports whether a device is none of hardware, and not even a path to
// hardware.
func virtual(device string) bool {
	return strings.HasPrefix(device, "/sys/devices/virtual/block/")
}
