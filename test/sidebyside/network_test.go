//go:build linux

package sidebyside

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/qga"
)

// interfaceSetup are arguments of ip(8). Not every kernel can do them all; the
// agents have to agree on whatever there is. The lines that begin with "!"
// must succeed.
var interfaceSetup = []string{
	"!link set lo up",
	"!link add d0 address 02:00:00:00:00:01 type veth peer name d1",
	"!link set d0 up",
	"!link set d1 up",
	"!addr add 10.1.2.3/24 dev d0",
	"!addr add 10.1.2.4/32 dev d0 label d0:1",
	"!addr add 10.1.2.5/25 dev d0 label d0:1",
	"!addr add 10.1.9.5 peer 10.1.9.6/32 dev d0",
	"addr add 10.1.2.98/24 dev d0 label d1", // the name of another interface
	"addr add 10.1.2.99/24 dev d0 label d0x",
	"addr add fd00:1::5/64 dev d0 nodad",
	"addr add fd00:2::5 peer fd00:2::6/128 dev d0 nodad",
	"addr add ::1.2.3.4/96 dev d1 nodad",
	"addr add ::ffff:1.2.3.5/96 dev d1 nodad",
	"addr add 1:0:0:2:0:0:0:3/64 dev d1 nodad",
	"addr add 1:0:2:3:4:5:6:7/64 dev d1 nodad",
	"addr add ::1:0:0/128 dev d1 nodad",
	"link add empty address 02:00:00:00:00:02 type veth peer name empty-peer",
	"link add br0 type bridge",
	"link set empty-peer master br0",
	"link set br0 up",
	"addr add 10.5.0.1/24 dev br0",
	"link add link d0 name d0.7 type vlan id 7",
	"addr add 10.7.0.1/16 dev d0.7",
	"link add mv0 link d0 type macvlan",
	"link add vx0 type vxlan id 9 dstport 4789",
	"link add dummy1 type dummy",
	"link add ifb1 type ifb",
	"link add bond1 type bond",
	"link add wg1 type wireguard",
	"tuntap add tun1 mode tun",
	"tuntap add tap1 mode tap",
	"addr add 10.8.0.5/30 dev tun1",
	// Tunnels, whose hardware address is their end's.
	"link add gre1 type gre local 10.1.2.3 remote 10.1.2.77",
	"link add sit1 type sit local 10.1.2.3 remote 10.1.2.77",
	"link add ipip1 type ipip local 10.1.2.3 remote 10.1.2.78",
	"link add six1 type ip6tnl local fd00:1::5 remote fd00:1::6",
	"link add gresix1 type ip6gre local fd00:1::5 remote fd00:1::7",
	"addr add 10.9.0.1/30 dev gre1",
	"link set sit1 up",

	"!route add default via 10.1.2.1 dev d0 metric 100 mtu 1300 window 1000 rtt 300ms",
	"!route add blackhole 10.99.0.0/16",
	"route add unreachable 10.98.0.0/16 metric 4294967295",
	"route add 10.97.0.0/16 nexthop via 10.1.2.1 nexthop via 10.1.2.2",
	"-6 route add blackhole 2001:db8:1::/48",
	"-6 route add 2001:db8:2::/48 via fd00:1::9 metric 4000000000",
	"-6 route add 2001:db8:3::/48 from 2001:db8:4::/64 via fd00:1::9",
	"-6 route add ::1.2.0.0/112 dev d1",
}

// TestNetwork compares what the agents reply in a network namespace with many
// kinds of interfaces, and in the one of the machine.
func TestNetwork(t *testing.T) {
	cAgent(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	ours := ourAgent(t)
	t.Run("machine", func(t *testing.T) {
		compareNetwork(t, startC(t), start(t, ours))
	})
	t.Run("namespace", func(t *testing.T) {
		// Never unlocked: the thread, and the namespace with it, ends with the
		// goroutine of the test.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Skipf("network namespace: %v", err)
		}
		for _, line := range interfaceSetup {
			arguments, required := strings.CutPrefix(line, "!")
			out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput()
			switch {
			case err != nil && required:
				t.Fatalf("ip %s: %v\n%s", arguments, err, out)
			case err != nil:
				t.Logf("without: ip %s: %s", arguments, out)
			}
		}
		// For the counters: through lo, and into a void.
		for _, to := range []string{"127.0.0.1:9", "10.1.2.77:9"} {
			conn, err := net.Dial("udp", to)
			if err != nil {
				t.Fatal(err)
			}
			for range 7 {
				_, _ = conn.Write(make([]byte, 100))
			}
			conn.Close()
		}
		list := compareNetwork(t, startC(t), start(t, ours))

		// What the comparison would be empty without.
		found := map[string]qga.Interface{}
		for _, i := range list {
			found[i.Name] = i
		}
		if s := found["lo"].Statistics; s == nil || s.TxBytes < 700 || s.RxPackets < 7 {
			t.Errorf("lo has counted %+v", s)
		}
		if alias := found["d0:1"]; len(alias.IPAddresses) != 2 || alias.Statistics != nil || alias.HardwareAddress == nil {
			t.Errorf("the alias is %+v", alias)
		}
		if len(found["d0"].IPAddresses) < 2 {
			t.Errorf("d0 is %+v", found["d0"])
		}
	})
}

// TestRoutesWrecked compares what is made of lists of routes that are not what they
// should be.
func TestRoutesWrecked(t *testing.T) {
	cAgent(t)
	program := ourAgent(t)
	const (
		heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
		v4      = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t1500\t0\t12\n"
		v6      = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n"
	)
	for _, files := range []map[string]string{
		{"ipv6_route": v6},
		{"route": "", "ipv6_route": ""},
		{"route": heading, "ipv6_route": v6},
		{"route": heading + v4, "ipv6_route": ""},
		{"route": heading + v4 + v4[:40], "ipv6_route": v6 + v6[:100]},
		{"route": "garbage\n", "ipv6_route": "\xff\x00"},
	} {
		dir := t.TempDir()
		replaceFiles(t, filepath.Join(dir, "net"), files)
		script := fmt.Sprintf("mount --bind %s /proc", dir)
		c, ours := start(t, apart(t, cAgent(t), script)), start(t, apart(t, program, script))
		const request = `{"execute":"guest-network-get-route"}`
		if want, got := firstReply(t, c, request), firstReply(t, ours, request); !bytes.Equal(got, want) {
			t.Errorf("%q:\n got %s\nwant %s", files, got, want)
		}
	}
}

// compareNetwork returns the interfaces.
func compareNetwork(t *testing.T, c, ours string) []qga.Interface {
	t.Helper()
	theirs, our := steadyReplies(t, c, ours, `{"execute":"guest-network-get-interfaces"}`)
	list := returnOf[[]qga.Interface](t, our)
	equalJSON(t, "guest-network-get-interfaces", returnOf[[]qga.Interface](t, theirs), list)

	theirs, our = steadyReplies(t, c, ours, `{"execute":"guest-network-get-route"}`)
	routes := returnOf[[]qga.Route](t, theirs)
	for _, r := range routes {
		*r.Flags = uint64(uint32(*r.Flags)) // the C agent extends the sign
	}
	equalJSON(t, "guest-network-get-route", routes, returnOf[[]qga.Route](t, our))
	return list
}
