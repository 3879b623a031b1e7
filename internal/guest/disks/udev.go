package disks

import (
	"path"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

// uevent is what the kernel tells of a block device in its uevent file.
type uevent struct {
	// number is major:minor.
	number string
	// node is the path of the device node, "" when the device has none.
	node string
	// partition tells a partition from a whole disk.
	partition bool
	// sequence is the number that the disk has got and no other disk since the
	// system came up; "" on kernels before 5.15.
	sequence string

	// properties is what udev knows, nil if nothing, once it was asked.
	properties *properties
	asked      bool
}

// parseUevent reads the text of a block device's uevent file.
func parseUevent(text string) *uevent {
	u := new(uevent)
	var major, minor string
	for line := range root.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r"), "=")
		switch key {
		case "MAJOR":
			major = value
		case "MINOR":
			minor = value
		case "DEVNAME":
			// Joined so that garbage does not lead out of the directory.
			if node := path.Join("/", strings.TrimPrefix(value, "/dev/")); node != "/" {
				u.node = "/dev" + node
			}
		case "DISKSEQ":
			u.sequence = value
		case "DEVTYPE":
			u.partition = value == "partition"
		}
	}
	if major != "" && minor != "" {
		u.number = major + ":" + minor
	}
	return u
}

// properties are those of a device in the database of udev that are of use
// here.
type properties struct {
	// serial identifies the disk: mostly vendor, model and serial number.
	serial string
	// alias is the device mapper's name.
	alias string
}

// parseProperties reads a file of udev's database. Its lines are a letter for
// the kind, a colon and the rest; properties are of kind E.
func parseProperties(text string) properties {
	var p properties
	for line := range root.Lines(text) {
		property, ok := strings.CutPrefix(line, "E:")
		if !ok {
			continue
		}
		switch key, value, _ := strings.Cut(property, "="); key {
		case "ID_SERIAL":
			p.serial = value
		case "DM_NAME":
			p.alias = value
		}
	}
	return p
}
