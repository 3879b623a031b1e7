package filesystems

import (
	"github.com/bellhop-vm/bellhop/internal/guest/disks"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

// btrfs is, for each block device that is part of a mounted btrfs file system,
// all the devices of that file system.
type btrfs map[string][]string

// findBtrfs asks the kernel about the mounted btrfs file systems.
func findBtrfs(dir root.Dir, tree *disks.Tree) btrfs {
	const base = "/sys/fs/btrfs/"
	found := btrfs{}
	ids, _ := dir.ReadDir(base)
	for _, id := range ids {
		// There are other directories as well, without devices.
		names, _ := dir.ReadDir(base + id + "/devices")
		var devices []string
		for _, name := range names {
			if d, ok := tree.Follow(base + id + "/devices/" + name); ok {
				devices = append(devices, d)
			}
		}
		for _, d := range devices {
			found[d] = devices
		}
	}
	return found
}

// of returns the devices of the file system that device belongs to.
func (b btrfs) of(device string) []string {
	if devices, ok := b[device]; ok {
		return devices
	}
	return []string{device}
}
