package disks

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/qga"
)

// A Tree is the block devices of a system during one command. It remembers what
// it found, because many file systems and volumes may lie on one disk.
type Tree struct {
	root      root.Dir
	addresses map[string]*qga.DiskAddress
	uevents   map[string]*uevent
	// btrfs is the members of each mounted btrfs, by member. Nil until asked for.
	btrfs map[string][]string
	// left is how long disks may yet keep a command waiting.
	left time.Duration
}

// A command waits patience in all for disks to tell of themselves, and even if that is
// used up grace for each: all but the dead answer in milliseconds.
const (
	patience = 2 * time.Second
	grace    = 20 * time.Millisecond
)

// wait returns how long a disk may take that is asked now, and what to call when it
// has answered, or has not.
func (t *Tree) wait(most time.Duration) (limit time.Duration, done func()) {
	begin := time.Now()
	return min(most, max(t.left, grace)), func() { t.left -= time.Since(begin) }
}

// NewTree returns the block devices of the system at dir.
func NewTree(dir root.Dir) *Tree {
	return &Tree{root: dir, addresses: make(map[string]*qga.DiskAddress), uevents: make(map[string]*uevent), left: patience}
}

// Path returns the directory in /sys/devices of the block device with a number.
// It is false if there is no such device.
func (t *Tree) Path(major, minor uint32) (string, bool) {
	return t.Follow("/sys/dev/block/" + strconv.FormatUint(uint64(major), 10) + ":" + strconv.FormatUint(uint64(minor), 10))
}

// Addresses returns where the disks under block devices are, or the partitions
// of them: a device itself, or what a virtual one builds on, each once. It is
// empty for what has no disk, such as a loop device.
func (t *Tree) Addresses(devices ...string) []qga.DiskAddress {
	list := []qga.DiskAddress{}
	seen := make(map[string]bool)
	var add func(string)
	add = func(device string) {
		if seen[device] {
			return
		}
		seen[device] = true
		if virtual(device) {
			for _, s := range t.BuiltOn(device) {
				add(s)
			}
		} else if a := t.address(device); a != nil {
			list = append(list, *a)
		}
	}
	for _, d := range devices {
		add(d)
	}
	return list
}

// Follow returns where in /sys/devices a link of sysfs leads. The kernel makes
// these links without links in them, so that one step will do.
func (t *Tree) Follow(link string) (string, bool) {
	target, err := t.root.Readlink(link)
	if err != nil {
		return "", false
	}
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(link), target)
	}
	return target, true
}

// address returns where a disk or partition is, or nil if nothing can be said
// of it.
func (t *Tree) address(device string) *qga.DiskAddress {
	a, ok := t.addresses[device]
	if !ok {
		a = t.findAddress(device)
		t.addresses[device] = a
	}
	return a
}

func (t *Tree) findAddress(device string) *qga.DiskAddress {
	u := t.uevent(device)
	if u == nil && !t.root.Exists(device) {
		return nil // unplugged just now
	}
	a, known := t.locate(device)
	if u != nil && u.node != "" {
		a.Dev = &u.node
	}
	if serial := t.serial(device, u); serial != "" {
		a.Serial = &serial
	}
	if !known && a.Dev == nil && a.Serial == nil {
		return nil
	}
	return &a
}

// locate finds out from its path how a device is attached. It is false if
// nothing can be said of that, and the address is that of an unknown bus then.
func (t *Tree) locate(device string) (qga.DiskAddress, bool) {
	a := qga.DiskAddress{BusType: qga.BusUnknown, PCIController: qga.PCIAddress{Domain: -1, Bus: -1, Slot: -1, Function: -1}}
	device = t.throughController(device)
	parts := strings.Split(device, "/")
	// The last one counts: one controller may hide a whole PCI bus of its own.
	for i, p := range slices.Backward(parts) {
		if isPCIRoot(p) {
			if t.locatePCI(&a, parts, i+1) {
				return a, true
			}
			break
		}
	}
	known := false
	for i, p := range parts {
		if _, ok := numbered(p, "css"); ok {
			known = locateCCW(&a, parts[i+1:])
		}
	}
	if locateVirtio(&a, parts) {
		known = true
	}
	return a, known
}

// throughController returns the path through a controller for an NVMe namespace
// that may have several, which is why the kernel does not put it below one.
func (t *Tree) throughController(device string) string {
	rest, ok := strings.CutPrefix(device, "/sys/devices/virtual/nvme-subsystem/")
	if !ok {
		return device
	}
	subsystem, namespace, _ := strings.Cut(rest, "/")
	dir := "/sys/devices/virtual/nvme-subsystem/" + subsystem
	names, _ := t.root.ReadDir(dir)
	for _, name := range names {
		if _, ok := numbered(name, "nvme"); !ok {
			continue
		}
		if controller, ok := t.Follow(dir + "/" + name); ok {
			return controller + "/" + namespace
		}
	}
	return device
}

// locatePCI goes down the PCI functions from parts[first] on to the controller.
func (t *Tree) locatePCI(a *qga.DiskAddress, parts []string, first int) bool {
	for i := first; i < len(parts); i++ {
		pci, ok := parsePCI(parts[i])
		if !ok {
			break
		}
		driver, _ := t.root.Readlink(strings.Join(parts[:i+1], "/") + "/driver")
		if t.locateBehind(a, path.Base(driver), parts) {
			a.PCIController = pci
			return true
		}
	}
	return false
}

// locateBehind finds the bus and the numbers behind a controller that has a
// driver. It is false for drivers that do not belong to disk controllers.
func (t *Tree) locateBehind(a *qga.DiskAddress, driver string, parts []string) bool {
	scsi, isSCSI := parseSCSI(parts)
	switch driver {
	case "virtio-pci":
		a.BusType = qga.BusVirtio
		if isSCSI {
			// Hosts match on the unit alone, and expect the others to be 0.
			a.BusType, a.Unit = qga.BusSCSI, scsi.lun
		}
	case "ata_piix":
		host, ok := t.hostIndex(parts)
		if !ok || !isSCSI {
			return false
		}
		a.BusType, a.Bus, a.Unit = qga.BusIDE, host, scsi.target
	case "ahci":
		host, ok := t.hostIndex(parts)
		if !ok {
			return false
		}
		a.BusType, a.Unit = qga.BusSATA, host
	case "sym53c8xx":
		if !isSCSI {
			return false
		}
		a.BusType, a.Unit = qga.BusSCSI, scsi.target
	case "nvme":
		a.BusType = qga.BusNVMe
	case "xhci_hcd", "ehci-pci", "uhci_hcd", "ohci-pci":
		a.BusType = qga.BusUSB
	default:
		return false
	}
	return true
}

// locateVirtio is for virtio devices that are not on PCI.
func locateVirtio(a *qga.DiskAddress, parts []string) bool {
	isVirtio := func(p string) bool { _, ok := numbered(p, "virtio"); return ok }
	if !slices.ContainsFunc(parts, isVirtio) || !slices.Contains(parts, "block") {
		return false
	}
	a.BusType = qga.BusVirtio
	if scsi, ok := parseSCSI(parts); ok {
		a.BusType, a.Bus, a.Target, a.Unit = qga.BusSCSI, scsi.channel, scsi.target, scsi.lun
	}
	return true
}

// locateCCW is for what is behind the channel subsystem: parts begin with the
// subchannel and the device, such as 0.0.0001 and 0.0.fe02.
func locateCCW(a *qga.DiskAddress, parts []string) bool {
	if len(parts) < 2 {
		return false
	}
	sub, ok := parseBusID(parts[0])
	if !ok {
		return false
	}
	device, ok := parseBusID(parts[1])
	if !ok {
		return false
	}
	a.CCWAddress = &qga.CCWAddress{CSSID: sub[0], SSID: sub[1], SubchNo: sub[2], DeviceNo: device[2]}
	return true
}

// hostIndex returns which of its controller's ports, or channels, a disk is on.
// The kernel numbers the ports of all controllers through.
func (t *Tree) hostIndex(parts []string) (int64, bool) {
	for _, prefix := range []string{"ata", "host"} {
		for i, p := range parts {
			own, ok := numbered(p, prefix)
			if !ok {
				continue
			}
			names, err := t.root.ReadDir(strings.Join(parts[:i], "/"))
			if err != nil {
				return 0, false
			}
			var index int64
			for _, name := range names {
				if n, ok := numbered(name, prefix); ok && n < own {
					index++
				}
			}
			return index, true
		}
	}
	return 0, false
}

// uevent returns what the kernel tells of a device. It is nil if the kernel
// cannot be asked.
func (t *Tree) uevent(device string) *uevent {
	u, ok := t.uevents[device]
	if !ok {
		if text, err := t.root.ReadAttribute(device + "/uevent"); err == nil {
			u = parseUevent(string(text))
		}
		t.uevents[device] = u
	}
	return u
}

// properties returns what udev knows of a device. It is false if it knows
// nothing, as on a system without udev.
func (t *Tree) properties(u *uevent) (properties, bool) {
	if u == nil || u.number == "" {
		return properties{}, false
	}
	if !u.asked {
		u.asked = true
		if text, err := t.root.ReadFile("/run/udev/data/b" + u.number); err == nil {
			u.properties = new(parseProperties(string(text)))
		}
	}
	if u.properties == nil {
		return properties{}, false
	}
	return *u.properties, true
}
