package qga

// An IPAddressType is the version of IP that an address belongs to.
type IPAddressType string

// The values of IPAddressType.
const (
	IPv4 IPAddressType = "ipv4"
	IPv6 IPAddressType = "ipv6"
)

// EnumValues implements Enum.
func (IPAddressType) EnumValues() []string { return enumValues(IPv4, IPv6) }

// An IPAddress is an address of an interface.
type IPAddress struct {
	// Address is the address as text, without prefix and zone.
	Address string        `json:"ip-address"`
	Type    IPAddressType `json:"ip-address-type"`
	// Prefix is the length of the network's prefix in bits.
	Prefix int64 `json:"prefix"`
}

// InterfaceStatistics are what an interface has counted since it was made.
type InterfaceStatistics struct {
	RxBytes   uint64 `json:"rx-bytes"`
	RxPackets uint64 `json:"rx-packets"`
	// RxErrs are damaged packets, RxDropped those there was no room for.
	RxErrs    uint64 `json:"rx-errs"`
	RxDropped uint64 `json:"rx-dropped"`
	TxBytes   uint64 `json:"tx-bytes"`
	TxPackets uint64 `json:"tx-packets"`
	// TxErrs are packets that could not be sent, TxDropped those never tried.
	TxErrs    uint64 `json:"tx-errs"`
	TxDropped uint64 `json:"tx-dropped"`
}

// An Interface is a network interface.
type Interface struct {
	Name string `json:"name"`
	// HardwareAddress is six bytes in lower-case hex with colons. Absent when
	// the interface has none.
	HardwareAddress *string `json:"hardware-address,omitempty"`
	// IPAddresses is absent rather than empty when there is no address.
	IPAddresses []IPAddress `json:"ip-addresses,omitempty"`
	// Statistics is absent when not known, and on Linux for an interface
	// without addresses.
	Statistics *InterfaceStatistics `json:"statistics,omitempty" since:"2.11"`
}

// NetworkGetInterfaces lists the network interfaces and their addresses.
var NetworkGetInterfaces = Command[Empty, []Interface]{Info{
	Name: "guest-network-get-interfaces", Since: "1.1", Systems: AllSystems,
}}

// A Route is an entry of a routing table. Version tells which members it has:
// Gateway, Mask, Irtt, Window and MTU are of IPv4, those from DesPrefixLen to
// NextHop are of IPv6, the others of both. Windows has fewer, and MTU with
// either.
type Route struct {
	// Iface is the name of the interface; on Linux it is * for an IPv4 route
	// that leads nowhere.
	Iface       string `json:"iface"`
	Destination string `json:"destination"`
	// Metric is the route's cost; the lowest is taken.
	Metric int64 `json:"metric"`
	// Gateway is 0.0.0.0 where the destination is reached directly.
	Gateway *string `json:"gateway,omitempty"`
	Mask    *string `json:"mask,omitempty"`
	// Irtt is the initial round trip time of TCP in milliseconds, 0 for the
	// kernel's own choice.
	Irtt *int64 `json:"irtt,omitempty"`
	// Flags are the kernel's RTF_ bits.
	Flags *uint64 `json:"flags,omitempty"`
	// RefCnt and Use count references and look-ups, where the kernel does.
	RefCnt *int64 `json:"refcnt,omitempty"`
	Use    *int64 `json:"use,omitempty"`
	// Window is the TCP window in bytes and MTU the largest packet, 0 where the
	// route does not set them.
	Window *int64 `json:"window,omitempty"`
	MTU    *int64 `json:"mtu,omitempty"`
	// DesPrefixLen and SrcPrefixLen are the lengths in bits of the prefixes in
	// Destination and Source, as decimal numbers in strings.
	DesPrefixLen *string `json:"desprefixlen,omitempty"`
	Source       *string `json:"source,omitempty"`
	SrcPrefixLen *string `json:"srcprefixlen,omitempty"`
	// NextHop is :: where the destination is reached directly.
	NextHop *string `json:"nexthop,omitempty"`
	// Version is that of IP: 4 or 6.
	Version int64 `json:"version"`
}

// NetworkGetRoute lists the routes. Windows has it since 11.0.
var NetworkGetRoute = Command[Empty, []Route]{Info{
	Name: "guest-network-get-route", Since: "9.1", Systems: Linux | Windows,
}}
