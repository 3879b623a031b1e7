package mounts

import (
	"errors"
	"iter"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

var errNoList = errors.New("failed to open mtab file: '/proc/self/mounts'")

// List returns the mounted file systems that have a block device, each device
// once, in the order of mounting. What lies on a network, in memory or on other
// file systems is left out.
func List(dir root.Dir) ([]Mount, error) {
	data, err := dir.ReadFile("/proc/self/mountinfo")
	if err == nil {
		return unique(withDevice(dir, parseMountinfo(string(data)))), nil
	}
	// A kernel of before 2.6.26, or a /proc that was doctored.
	if data, err = dir.ReadFile("/proc/self/mounts"); err != nil {
		return nil, errNoList
	}
	return unique(fromDevice(dir, parseMounts(string(data)))), nil
}

// withDevice keeps the mounts that have a block device.
func withDevice(dir root.Dir, all iter.Seq[Mount]) []Mount {
	var kept []Mount
	for m := range all {
		if m.Major == 0 && m.Type == "btrfs" {
			// Each subvolume has a device number of its own that no device
			// answers to.
			m.Major, m.Minor = device(dir, m.Source)
		}
		if m.Major != 0 {
			kept = append(kept, m)
		}
	}
	return kept
}

// fromDevice keeps the mounts that look like those of a device, and finds its
// number.
func fromDevice(dir root.Dir, all iter.Seq[Mount]) []Mount {
	var kept []Mount
	for m := range all {
		if !strings.HasPrefix(m.Source, "/") || m.Type == "smbfs" || m.Type == "cifs" {
			continue
		}
		if stat, err := lookup(dir, m.Source); err == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue // a bind mount as mount(8) once noted them
		}
		m.Major, m.Minor = device(dir, m.Source)
		kept = append(kept, m)
	}
	return kept
}

// unique joins the mounts of one device.
func unique(all []Mount) []Mount {
	type number struct{ major, minor uint32 }
	first := make(map[number]int, len(all))
	kept := all[:0]
	for _, m := range all {
		n := number{m.Major, m.Minor}
		if i, ok := first[n]; ok {
			kept[i].Others = append(kept[i].Others, m.Point)
			continue
		}
		if m.Major != 0 {
			first[n] = len(kept)
		}
		kept = append(kept, m)
	}
	return kept
}

// device returns the number of the block device that has the node name, or 0
// and 0. Where there are no nodes, as in a container, sysfs knows it.
func device(dir root.Dir, name string) (major, minor uint32) {
	if stat, err := lookup(dir, name); err == nil {
		if stat.Mode&unix.S_IFMT != unix.S_IFBLK {
			return 0, 0
		}
		return unix.Major(uint64(stat.Rdev)), unix.Minor(uint64(stat.Rdev))
	}
	if path.Dir(name) == "/dev" {
		number, _ := dir.ReadLine("/sys/class/block/" + path.Base(name) + "/dev")
		if major, minor, ok := parseDevice(number); ok {
			return major, minor
		}
	}
	return 0, 0
}

func lookup(dir root.Dir, name string) (stat unix.Stat_t, err error) {
	if !path.IsAbs(name) {
		return stat, unix.ENOENT
	}
	if name, err = dir.Resolve(name); err != nil {
		return stat, err
	}
	return stat, unix.Stat(dir.Path(name), &stat)
}
