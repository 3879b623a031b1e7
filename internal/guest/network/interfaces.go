package network

import (
	"path"
	"strings"

	"github.com/bellhop-vm/bellhop/qga"
)

// A link is a network interface as the kernel sees it.
type link struct {
	index int32
	name  string
	// hardware is the beginning of the link-layer address, which is that of a
	// tunnel's end or longer than this on some links. Zeros stand for none.
	hardware   [6]byte
	statistics qga.InterfaceStatistics
}

// An address is an IP address of the link with the index. Its name is what it is
// labelled with, or empty.
type address struct {
	index int32
	name  string
	ip    qga.IPAddress
}

// excluded reports whether one of the patterns matches name.
func excluded(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}

// interfaces brings links and addresses together as the C agent does: by name,
// in the order of first appearance. The label of an address is such a name, so
// that an old-style alias is an interface of its own; it has the hardware
// address of what stands before the colon, and no counters. An interface without
// addresses has no counters either.
func interfaces(links []link, addresses []address, exclude []string) []qga.Interface {
	list := make([]qga.Interface, 0, len(links))
	place := make(map[string]int, len(links))
	add := func(name string) int {
		i, ok := place[name]
		if !ok {
			i = len(list)
			place[name] = i
			list = append(list, qga.Interface{Name: name})
		}
		return i
	}
	byIndex := make(map[int32]*link, len(links))
	byName := make(map[string]*link, len(links))
	for i := range links {
		l := &links[i]
		byIndex[l.index], byName[l.name] = l, l
		if !excluded(exclude, l.name) {
			list[add(l.name)].HardwareAddress = new(hardwareText(l.hardware))
		}
	}
	for _, a := range addresses {
		l, ok := byIndex[a.index]
		if !ok || excluded(exclude, l.name) {
			continue
		}
		if a.name == "" {
			a.name = l.name
		}
		if excluded(exclude, a.name) {
			continue
		}
		entry := &list[add(a.name)]
		entry.IPAddresses = append(entry.IPAddresses, a.ip)
		if l, ok := byName[a.name]; ok {
			entry.Statistics = &l.statistics
		}
		base, _, _ := strings.Cut(a.name, ":")
		if l, ok := byName[base]; ok && entry.HardwareAddress == nil {
			entry.HardwareAddress = new(hardwareText(l.hardware))
		}
	}
	return list
}

func hardwareText(a [6]byte) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, len("00:00:00:00:00:00"))
	for i, octet := range a {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, digits[octet>>4], digits[octet&0xf])
	}
	return string(b)
}
