package network

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/qga"
)

// message makes a netlink message.
func message(kind, flags uint16, seq uint32, data []byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(data)+3)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)+len(data)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return pad(append(b, data...))
}

func attribute(kind uint16, value []byte) []byte {
	b := make([]byte, unix.SizeofRtAttr)
	binary.NativeEndian.PutUint16(b[0:], uint16(len(b)+len(value)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	return pad(append(b, value...))
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func linkData(index byte, attributes ...[]byte) []byte {
	header := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	return slices.Concat(append([][]byte{header}, attributes...)...)
}

func addressData(family, prefix, index byte, attributes ...[]byte) []byte {
	header := []byte{family, prefix, 0, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	return slices.Concat(append([][]byte{header}, attributes...)...)
}

func done(errno int32) []byte {
	return binary.NativeEndian.AppendUint32(nil, uint32(-errno))
}

// kernel answers each request with what reply returns for its ordinal, kind and
// sequence number: datagrams.
func kernel(t *testing.T, reply func(n int, kind uint16, seq uint32) [][]byte) *conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300000}); err != nil {
		t.Fatal(err)
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		defer unix.Close(fds[1])
		request := make([]byte, 100)
		for n := 0; ; n++ {
			size, err := unix.Read(fds[1], request)
			if err != nil || size == 0 {
				return
			}
			if want := int(binary.NativeEndian.Uint32(request)); size != want {
				t.Errorf("request of %d bytes claims %d", size, want)
			}
			for _, datagram := range reply(n, binary.NativeEndian.Uint16(request[4:]), binary.NativeEndian.Uint32(request[8:])) {
				if _, err := unix.Write(fds[1], datagram); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	c := &conn{fd: fds[0], room: maxDatagram}
	t.Cleanup(func() { c.close(); <-finished })
	return c
}

func TestSnapshot(t *testing.T) {
	name := attribute(unix.IFLA_IFNAME, []byte("eth0\x00"))
	ip := attribute(unix.IFA_LOCAL, []byte{10, 0, 0, 1})
	for _, tt := range []struct {
		name     string
		reply    func(n int, kind uint16, seq uint32) [][]byte
		requests int64
		err      error
	}{
		{"whole", func(_ int, kind uint16, seq uint32) [][]byte {
			if kind == unix.RTM_GETLINK {
				// Messages of another conversation are none of ours.
				return [][]byte{
					message(unix.RTM_NEWLINK, 0, seq+9, linkData(9, name)),
					slices.Concat(message(unix.RTM_NEWLINK, 0, seq, linkData(2, name)), message(unix.NLMSG_DONE, 0, seq, done(0))),
				}
			}
			return [][]byte{message(unix.RTM_NEWADDR, 0, seq, addressData(unix.AF_INET, 8, 2, ip)), message(unix.NLMSG_DONE, 0, seq, nil)}
		}, 2, nil},
		{"interrupted twice", func(n int, kind uint16, seq uint32) [][]byte {
			var flags uint16
			if n == 0 || n == 3 { // the links, then the addresses
				flags = unix.NLM_F_DUMP_INTR
			}
			if kind == unix.RTM_GETLINK {
				return [][]byte{message(unix.RTM_NEWLINK, 0, seq, linkData(2, name)), message(unix.NLMSG_DONE, flags, seq, done(0))}
			}
			return [][]byte{message(unix.RTM_NEWADDR, flags, seq, addressData(unix.AF_INET, 8, 2, ip)), message(unix.NLMSG_DONE, 0, seq, done(0))}
		}, 6, nil},
		{"interrupted always", func(_ int, kind uint16, seq uint32) [][]byte {
			if kind == unix.RTM_GETLINK {
				return [][]byte{message(unix.RTM_NEWLINK, unix.NLM_F_DUMP_INTR, seq, linkData(2, name)), message(unix.NLMSG_DONE, 0, seq, done(0))}
			}
			return [][]byte{message(unix.RTM_NEWADDR, 0, seq, addressData(unix.AF_INET, 8, 2, ip)), message(unix.NLMSG_DONE, 0, seq, done(0))}
		}, 2 * attempts, nil},
		{"new link between the dumps", func(n int, kind uint16, seq uint32) [][]byte {
			switch {
			case kind == unix.RTM_GETADDR:
				return [][]byte{message(unix.RTM_NEWADDR, 0, seq, addressData(unix.AF_INET, 8, 2, ip)), message(unix.NLMSG_DONE, 0, seq, done(0))}
			case n == 0:
				return [][]byte{message(unix.NLMSG_DONE, 0, seq, done(0))}
			}
			return [][]byte{message(unix.RTM_NEWLINK, 0, seq, linkData(2, name)), message(unix.NLMSG_DONE, 0, seq, done(0))}
		}, 4, nil},
		{"refused", func(_ int, _ uint16, seq uint32) [][]byte {
			return [][]byte{message(unix.NLMSG_ERROR, 0, seq, append(done(int32(unix.EPERM)), make([]byte, 32)...))}
		}, 1, unix.EPERM},
		{"failed half way", func(_ int, _ uint16, seq uint32) [][]byte {
			return [][]byte{message(unix.RTM_NEWLINK, 0, seq, linkData(2, name)), message(unix.NLMSG_DONE, 0, seq, done(int32(unix.ENOMEM)))}
		}, 1, unix.ENOMEM},
		{"no end", func(_ int, _ uint16, seq uint32) [][]byte {
			return [][]byte{message(unix.RTM_NEWLINK, 0, seq, linkData(2, name))}
		}, 1, unix.ETIMEDOUT},
		{"cut off", func(_ int, _ uint16, seq uint32) [][]byte {
			return [][]byte{message(unix.RTM_NEWLINK, 0, seq, linkData(2, name))[:30]}
		}, 1, unix.EINVAL},
		{"too large", func(_ int, _ uint16, seq uint32) [][]byte {
			return [][]byte{message(unix.RTM_NEWLINK, 0, seq, make([]byte, maxDatagram))}
		}, 1, unix.EMSGSIZE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			c := kernel(t, func(n int, kind uint16, seq uint32) [][]byte {
				requests.Add(1)
				return tt.reply(n, kind, seq)
			})
			links, addresses, err := c.snapshot()
			if !errors.Is(err, tt.err) {
				t.Fatalf("got error %v, want %v", err, tt.err)
			}
			if n := requests.Load(); n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			if err == nil && (len(links) != 1 || links[0].name != "eth0" || len(addresses) != 1 || addresses[0].ip.Address != "10.0.0.1") {
				t.Errorf("got %+v %+v", links, addresses)
			}
		})
	}
}

func TestParseLink(t *testing.T) {
	var counters []byte
	for i := range uint64(24) {
		counters = binary.NativeEndian.AppendUint64(counters, 1<<40+1<<i)
	}
	name := attribute(unix.IFLA_IFNAME, []byte("gre1\x00"))
	for _, tt := range []struct {
		name string
		data []byte
		want link
		ok   bool
	}{
		{"ethernet", linkData(3, name, attribute(unix.IFLA_ADDRESS, []byte{1, 2, 3, 4, 5, 6})), link{index: 3, name: "gre1", hardware: [6]byte{1, 2, 3, 4, 5, 6}}, true},
		{"tunnel", linkData(3, attribute(unix.IFLA_ADDRESS, []byte{10, 0, 0, 1}), name), link{index: 3, name: "gre1", hardware: [6]byte{10, 0, 0, 1, 0, 0}}, true},
		{"infiniband", linkData(3, attribute(unix.IFLA_ADDRESS, slices.Repeat([]byte{9}, 20)), name), link{index: 3, name: "gre1", hardware: [6]byte{9, 9, 9, 9, 9, 9}}, true},
		{"no address", linkData(3, name), link{index: 3, name: "gre1"}, true},
		{"counters", linkData(3, name, attribute(unix.IFLA_STATS64, counters)), link{
			index: 3, name: "gre1",
			statistics: qga.InterfaceStatistics{
				RxPackets: 1<<40 + 1, TxPackets: 1<<40 + 2, RxBytes: 1<<40 + 4, TxBytes: 1<<40 + 8,
				RxErrs: 1<<40 + 16, TxErrs: 1<<40 + 32, RxDropped: 1<<41 + 64 + 1<<15, TxDropped: 1<<40 + 128,
			},
		}, true},
		{"no name", linkData(3), link{}, false},
		{"short", []byte{1, 2, 3}, link{}, false},
		{"cut off", append(linkData(3, name), attribute(unix.IFLA_ADDRESS, make([]byte, 6))[:7]...), link{index: 3, name: "gre1"}, true},
	} {
		got, ok := parseLink(tt.data)
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s: got %+v, %t, want %+v, %t", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestParseAddress(t *testing.T) {
	v6 := []byte{0xfd, 15: 1}
	for _, tt := range []struct {
		name string
		data []byte
		want string // label, address, prefix; or nothing
	}{
		{"IPv4", addressData(unix.AF_INET, 24, 2, attribute(unix.IFA_LOCAL, []byte{10, 0, 0, 1}), attribute(unix.IFA_LABEL, []byte("d0:1\x00"))), "d0:1 10.0.0.1 24"},
		{"IPv4 peer", addressData(unix.AF_INET, 32, 2, attribute(unix.IFA_ADDRESS, []byte{10, 0, 0, 2}), attribute(unix.IFA_LOCAL, []byte{10, 0, 0, 1})), " 10.0.0.1 32"},
		{"IPv6", addressData(unix.AF_INET6, 64, 2, attribute(unix.IFA_ADDRESS, v6)), " fd00::1 64"},
		{"IPv6 peer", addressData(unix.AF_INET6, 128, 2, attribute(unix.IFA_LOCAL, v6), attribute(unix.IFA_ADDRESS, make([]byte, 16))), " fd00::1 128"},
		{"wrong length", addressData(unix.AF_INET6, 64, 2, attribute(unix.IFA_ADDRESS, v6[:4])), ""},
		{"another family", addressData(unix.AF_PHONET, 8, 2, attribute(unix.IFA_LOCAL, []byte{1})), ""},
		{"none", addressData(unix.AF_INET, 8, 2), ""},
		{"short", []byte{2, 8}, ""},
	} {
		got := ""
		if a, ok := parseAddress(tt.data); ok {
			got = a.name + " " + a.ip.Address + " " + strconv.FormatInt(a.ip.Prefix, 10)
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(linkData(3, attribute(unix.IFLA_IFNAME, []byte("eth0\x00")), attribute(unix.IFLA_STATS64, make([]byte, 192))))
	f.Add(addressData(unix.AF_INET, 24, 2, attribute(unix.IFA_LOCAL, []byte{10, 0, 0, 1})))
	f.Fuzz(func(t *testing.T, data []byte) {
		if l, ok := parseLink(data); ok && l.name == "" {
			t.Errorf("%+v", l)
		}
		if a, ok := parseAddress(data); ok && (a.ip.Address == "" || a.ip.Type == "") {
			t.Errorf("%+v", a)
		}
	})
}
