package network

import (
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/qga"
)

// firstDatagram is the room for the first datagrams of a dump. The kernel allocates as
// much as there is room for each, and where it is made to clear what it allocates, as
// Debian's is, that takes longer than to write about a few interfaces.
var firstDatagram = min(os.Getpagesize(), maxDatagram)

const (
	// maxDatagram is what the kernel puts into one datagram of a dump, if the
	// reader leaves it the room.
	maxDatagram = 32 << 10

	// timeout is how long to wait for a datagram, in seconds. The kernel
	// composes a dump while it is being read, so that there is nothing to wait
	// for but its own locks.
	timeout = 5

	// attempts is how often to ask again when something changed meanwhile. A
	// guest whose interfaces come and go all the time gets the last answer,
	// which is no worse than the C agent's.
	attempts = 5
)

// snapshot returns all links of the network namespace and their addresses.
func snapshot() ([]link, []address, error) {
	c := conns.Get().(*conn)
	defer conns.Put(c)
	for first := firstDatagram; ; first = maxDatagram {
		if err := c.dial(); err != nil {
			return nil, nil, err
		}
		c.room = first
		links, addresses, err := c.snapshot()
		c.close()
		if err != unix.EMSGSIZE || first == maxDatagram {
			return links, addresses, err
		}
	}
}

// A conn is a rtnetlink socket.
type conn struct {
	fd   int
	seq  uint32
	room int // of buf, for a datagram
	buf  [maxDatagram]byte
}

// conns are not connected: what is worth keeping is their buffers, which would
// be most of what the collector has to do.
var conns = sync.Pool{New: func() any { return new(conn) }}

func (c *conn) dial() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	c.fd = fd
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: timeout})
	if err == nil {
		// A connected socket takes nothing from anybody but the kernel.
		err = unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		c.close()
	}
	return err
}

func (c *conn) close() { _ = unix.Close(c.fd) }

// snapshot asks until links and addresses fit together, within reason.
func (c *conn) snapshot() (links []link, addresses []address, err error) {
	for range attempts {
		links, addresses = nil, nil
		known := map[int32]bool{}
		orphans := false
		linksWhole, err := c.dump(unix.RTM_GETLINK, linksRequest, func(data []byte) {
			if l, ok := parseLink(data); ok {
				links = append(links, l)
				known[l.index] = true
			}
		})
		if err != nil {
			return nil, nil, err
		}
		addressesWhole, err := c.dump(unix.RTM_GETADDR, addressesRequest, func(data []byte) {
			if a, ok := parseAddress(data); ok {
				addresses = append(addresses, a)
				orphans = orphans || !known[a.index]
			}
		})
		if err != nil {
			return nil, nil, err
		}
		if linksWhole && addressesWhole && !orphans {
			break
		}
	}
	return links, addresses, nil
}

// Requests for all links and all addresses, but for the header of the message: zeros ask
// for everything.
var (
	linksRequest     = withFilter(make([]byte, unix.SizeofIfInfomsg))
	addressesRequest = make([]byte, unix.SizeofIfAddrmsg)
)

// withFilter asks for what concerns the media redundancy protocol of bridges, too, of
// which such a request gets nothing. But only if something is asked for does the kernel
// find out how large the largest link is, and make each datagram so large; otherwise it
// ends the list, as if that were all, before one that is larger than the last room.
// See rtnl_calcit of net/core/rtnetlink.c.
func withFilter(request []byte) []byte {
	const filterMRP = 1 << 4 // RTEXT_FILTER_MRP of linux/rtnetlink.h
	request = binary.NativeEndian.AppendUint16(request, unix.SizeofRtAttr+4)
	request = binary.NativeEndian.AppendUint16(request, unix.IFLA_EXT_MASK)
	return binary.NativeEndian.AppendUint32(request, filterMRP)
}

// dump makes a request, calls each with the message of each object, and reports whether
// they are from one point in time.
func (c *conn) dump(kind uint16, body []byte, each func(data []byte)) (whole bool, err error) {
	c.seq++
	request := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	request = append(request, body...)
	binary.NativeEndian.PutUint32(request[0:], uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], kind)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(request[8:], c.seq)
	if _, err := unix.Write(c.fd, request); err != nil {
		return false, err
	}
	whole = true
	for {
		datagram, err := c.receive()
		if err != nil {
			return false, err
		}
		for len(datagram) > 0 {
			m, size, ok := parseReply(datagram)
			if !ok {
				return false, unix.EINVAL
			}
			datagram = datagram[size:]
			if m.seq != c.seq {
				continue
			}
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				whole = false
			}
			switch m.kind {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				return whole, status(m.data)
			default:
				each(m.data)
			}
		}
	}
}

// A reply is one of the messages in a datagram, with what counts of its header.
type reply struct {
	kind, flags uint16
	seq         uint32
	data        []byte
}

// parseReply returns the first message of a datagram and how much of it that
// is.
func parseReply(b []byte) (m reply, size int, ok bool) {
	if len(b) < unix.SizeofNlMsghdr {
		return reply{}, 0, false
	}
	length := uint64(binary.NativeEndian.Uint32(b))
	if length < unix.SizeofNlMsghdr || length > uint64(len(b)) {
		return reply{}, 0, false
	}
	m = reply{
		kind:  binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
		data:  b[unix.SizeofNlMsghdr:length],
	}
	return m, min((int(length)+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)), true
}

// receive returns the next datagram, which is good until the one after it.
func (c *conn) receive() ([]byte, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf[:c.room], unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR): // with a timeout the kernel does not restart it
		case errors.Is(err, unix.EAGAIN):
			return nil, unix.ETIMEDOUT
		case err != nil:
			return nil, err
		case n == 0:
			return nil, unix.ECONNRESET
		case n > c.room:
			return nil, unix.EMSGSIZE
		default:
			if n > c.room/2 { // there is more to come
				c.room = maxDatagram
			}
			return c.buf[:n], nil
		}
	}
}

// status returns the error that ends a dump. Most end without.
func status(data []byte) error {
	if len(data) < 4 {
		return nil // an old kernel says nothing when it is done
	}
	if errno := -int32(binary.NativeEndian.Uint32(data)); errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// parseLink reads a message of the form struct ifinfomsg and attributes. One
// without a name is none.
func parseLink(data []byte) (l link, ok bool) {
	if len(data) < unix.SizeofIfInfomsg {
		return link{}, false
	}
	l.index = int32(binary.NativeEndian.Uint32(data[4:]))
	for kind, value := range attributes(data[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(value)
		case unix.IFLA_ADDRESS:
			copy(l.hardware[:], value)
		case unix.IFLA_STATS64:
			l.statistics = parseStatistics(value)
		}
	}
	return l, l.name != ""
}

// parseStatistics reads a struct rtnl_link_stats64 of any age: kernels append
// to it, and what is not there counts as nothing.
func parseStatistics(value []byte) qga.InterfaceStatistics {
	counter := func(i int) uint64 {
		if len(value) < 8*(i+1) {
			return 0
		}
		return binary.NativeEndian.Uint64(value[8*i:])
	}
	const rxMissed = 15
	return qga.InterfaceStatistics{
		RxPackets: counter(0),
		TxPackets: counter(1),
		RxBytes:   counter(2),
		TxBytes:   counter(3),
		RxErrs:    counter(4),
		TxErrs:    counter(5),
		// What the device had no room for is counted apart from what the kernel
		// had none for; /proc/net/dev, where the C agent reads, adds them up.
		RxDropped: counter(6) + counter(rxMissed),
		TxDropped: counter(7),
	}
}

// parseAddress reads a message of the form struct ifaddrmsg and attributes. One
// that is no address of IP is none.
func parseAddress(data []byte) (a address, ok bool) {
	if len(data) < unix.SizeofIfAddrmsg {
		return address{}, false
	}
	family, prefix := data[0], data[1]
	a.index = int32(binary.NativeEndian.Uint32(data[4:]))
	var local, remote []byte
	for kind, value := range attributes(data[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LABEL:
			a.name = unix.ByteSliceToString(value)
		case unix.IFA_LOCAL:
			local = value
		case unix.IFA_ADDRESS:
			remote = value
		}
	}
	if local == nil {
		local = remote // on a link that is not point to point IPv6 has but this
	}
	a.ip.Prefix = int64(prefix)
	switch {
	case family == unix.AF_INET && len(local) == 4:
		a.ip.Type, a.ip.Address = qga.IPv4, ipv4Text([4]byte(local))
	case family == unix.AF_INET6 && len(local) == 16:
		a.ip.Type, a.ip.Address = qga.IPv6, ipv6Text([16]byte(local))
	default:
		return address{}, false
	}
	return a, true
}

// attributes yields the attributes of a message, up to one that is cut off.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			length := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:])
			if length < unix.SizeofRtAttr || length > len(b) || !yield(kind, b[unix.SizeofRtAttr:length]) {
				return
			}
			aligned := (length + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
			b = b[min(aligned, len(b)):]
		}
	}
}
