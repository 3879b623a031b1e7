package disks

import (
	"strconv"
	"strings"

	"github.com/bellhop-vm/bellhop/qga"
)

// isPCIRoot reports whether p is a PCI root such as pci0000:00.
func isPCIRoot(p string) bool {
	p, ok := strings.CutPrefix(p, "pci")
	domain, bus, colon := strings.Cut(p, ":")
	_, isDomain := hex(domain)
	_, isBus := hex(bus)
	return ok && colon && isDomain && isBus
}

// parsePCI parses the name of a PCI function such as 0000:00:1f.2.
func parsePCI(p string) (qga.PCIAddress, bool) {
	domain, rest, _ := strings.Cut(p, ":")
	bus, rest, _ := strings.Cut(rest, ":")
	slot, function, _ := strings.Cut(rest, ".")
	var a qga.PCIAddress
	for _, part := range []struct {
		text  string
		value *int64
	}{{domain, &a.Domain}, {bus, &a.Bus}, {slot, &a.Slot}, {function, &a.Function}} {
		n, ok := hex(part.text)
		if !ok {
			return qga.PCIAddress{}, false
		}
		*part.value = n
	}
	return a, true
}

// parseBusID parses the name of a channel subsystem's device such as 0.0.fe02.
func parseBusID(p string) ([3]int64, bool) {
	var id [3]int64
	for i := range id {
		part := p
		if i < len(id)-1 {
			part, p, _ = strings.Cut(p, ".")
		}
		n, ok := hex(part)
		if !ok {
			return id, false
		}
		id[i] = n
	}
	return id, true
}

// scsiAddress is the place of a SCSI device behind its host.
type scsiAddress struct{ channel, target, lun int64 }

// parseSCSI finds the SCSI device in a path: its target, such as target2:0:4,
// and then itself, 2:0:4:0.
func parseSCSI(parts []string) (scsiAddress, bool) {
	for i := 0; i+1 < len(parts); i++ {
		target, ok := strings.CutPrefix(parts[i], "target")
		if !ok {
			continue
		}
		lun, ok := strings.CutPrefix(parts[i+1], target+":")
		_, rest, _ := strings.Cut(target, ":")
		channel, id, _ := strings.Cut(rest, ":")
		a := scsiAddress{decimal(channel), decimal(id), decimal(lun)}
		if ok && min(a.channel, a.target, a.lun) >= 0 {
			return a, true
		}
	}
	return scsiAddress{}, false
}

// numbered returns the number in p if that is prefix and a number.
func numbered(p, prefix string) (uint64, bool) {
	digits, ok := strings.CutPrefix(p, prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// decimal parses a number, or returns -1.
func decimal(s string) int64 {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return -1
	}
	return int64(n)
}

// hex parses a hexadecimal number of up to 32 bits.
func hex(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 16, 32)
	return int64(n), err == nil
}
