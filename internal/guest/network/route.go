package network

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/qga"
)

// parseRoutes4 returns the routes in the contents of /proc/net/route. Its lines
// are
//
//	Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
//
// What is no such line, as the heading or one that has been cut off, is left out.
func parseRoutes4(data string) []qga.Route {
	var routes []qga.Route
	for line := range root.Lines(data) {
		fields := strings.Fields(line)
		if len(fields) != 11 {
			continue
		}
		p := parser{fields: fields}
		r := qga.Route{
			Version:     4,
			Iface:       fields[0],
			Destination: p.ipv4(1),
			Gateway:     new(p.ipv4(2)),
			Flags:       new(p.hex(3)),
			RefCnt:      new(p.decimal(4)),
			Use:         new(p.decimal(5)),
			Metric:      int64(int32(p.decimal(6))),
			Mask:        new(p.ipv4(7)),
			MTU:         new(p.decimal(8)),
			Window:      new(p.decimal(9)),
			Irtt:        new(p.decimal(10)),
		}
		if !p.failed {
			routes = append(routes, r)
		}
	}
	return routes
}

// parseRoutes6 returns the routes in the contents of /proc/net/ipv6_route, whose
// lines, without a heading, are
//
//	destination length source length nexthop metric refcnt use flags iface
//
// with hexadecimal numbers. What is no such line, whole, is left out.
func parseRoutes6(data string) []qga.Route {
	var routes []qga.Route
	for line := range root.Lines(data) {
		fields := strings.Fields(line)
		if len(fields) != 10 {
			continue
		}
		p := parser{fields: fields}
		r := qga.Route{
			Version:      6,
			Destination:  p.ipv6(0),
			DesPrefixLen: p.prefixLength(1),
			Source:       new(p.ipv6(2)),
			SrcPrefixLen: p.prefixLength(3),
			NextHop:      new(p.ipv6(4)),
			Metric:       int64(int32(p.hex(5))),
			RefCnt:       new(int64(p.hex(6))),
			Use:          new(int64(p.hex(7))),
			Flags:        new(p.hex(8)),
			Iface:        fields[9],
		}
		if !p.failed {
			routes = append(routes, r)
		}
	}
	return routes
}

// A parser converts the fields of a line and remembers whether one of them was
// not what it had to be.
type parser struct {
	fields []string
	failed bool
}

// hex reads a number of 32 bits at most.
func (p *parser) hex(i int) uint64 {
	n, err := strconv.ParseUint(p.fields[i], 16, 32)
	p.failed = p.failed || err != nil
	return n
}

// decimal reads a number of 32 bits, which older kernels print with a sign.
func (p *parser) decimal(i int) int64 {
	n, err := strconv.ParseInt(p.fields[i], 10, 64)
	p.failed = p.failed || err != nil || n < math.MinInt32 || n > math.MaxUint32
	return n
}

// prefixLength reads the length of the prefix of an IPv6 address.
func (p *parser) prefixLength(i int) *string {
	n := p.hex(i)
	p.failed = p.failed || n > 128
	return new(strconv.FormatUint(n, 10))
}

// ipv4 reads an address that the kernel printed as if its bytes were a number
// of the machine.
func (p *parser) ipv4(i int) string {
	var a [4]byte
	p.failed = p.failed || len(p.fields[i]) != hex.EncodedLen(len(a))
	binary.NativeEndian.PutUint32(a[:], uint32(p.hex(i)))
	return ipv4Text(a)
}

func (p *parser) ipv6(i int) string {
	var a [16]byte
	if len(p.fields[i]) != hex.EncodedLen(len(a)) {
		p.failed = true
		return ""
	}
	_, err := hex.Decode(a[:], []byte(p.fields[i]))
	p.failed = p.failed || err != nil
	return ipv6Text(a)
}
