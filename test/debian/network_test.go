//go:build linux

package debian

import (
	"path"
	"slices"
	"testing"

	"github.com/bellhop-vm/bellhop/qga"
)

// testNetworkKinds has our agent tell of interfaces of each kind that there are: what
// testInspect compares would be empty without them.
func testNetworkKinds(t *testing.T, g *guest) {
	found := make(map[string]qga.Interface)
	for _, i := range returned[[]qga.Interface](t, g.ours.ask(t, command("guest-network-get-interfaces", ""))) {
		found[i.Name] = i
	}
	for _, want := range []struct {
		name, hardware string
		addresses      []string
	}{
		// The hardware address of a tunnel is its end's, as far as there is room.
		{"gre1", "c0:00:02:01:00:00", []string{"10.9.0.1"}},
		{"ipip1", "c0:00:02:01:00:00", nil},
		{"sit1", "c0:00:02:01:00:00", []string{"2001:db8:5::1"}},
		{"six1", "20:01:0d:b8:00:00", nil},
		{"gresix1", "20:01:0d:b8:00:00", nil},
		{"tun0", "00:00:00:00:00:00", []string{"10.8.0.1", "fd00:8::1"}},
		{"bond1", "", []string{"10.3.0.1", "fd00:3::1"}},
		{"port1", "", nil},
		{"macvlan0", "", []string{"192.0.2.4"}},
		{"veth2", "", []string{
			"10.4.0.1", "2001:db8:4::1", "fe80::4", "fec0:4::1", "::192.0.2.4", "::ffff:192.0.2.4", "2002:c000:204::1",
		}},
	} {
		i, ok := found[want.name]
		switch {
		case !ok:
			t.Errorf("%s is not listed", want.name)
			continue
		case i.HardwareAddress == nil:
			t.Errorf("%s has no hardware address", want.name)
		case want.hardware != "" && *i.HardwareAddress != want.hardware:
			t.Errorf("%s has the hardware address %s, want %s", want.name, *i.HardwareAddress, want.hardware)
		}
		for _, a := range want.addresses {
			if !slices.ContainsFunc(i.IPAddresses, func(ip qga.IPAddress) bool { return ip.Address == a }) {
				t.Errorf("%s does not have the address %s, but %+v", want.name, a, i.IPAddresses)
			}
		}
	}
	if _, ok := found["veth3"]; ok {
		t.Error("veth3 is listed, which is in another namespace")
	}
}

// testNetworkExclude compares what an agent tells that is configured to leave
// interfaces out with what QEMU's tells of the others.
func testNetworkExclude(t *testing.T, g *guest) {
	patterns := []string{"veth*", "?re1"}
	g.shell(t, "printf '[bellhop]\\nnetwork-exclude=veth*,?re1\\n' >/run/exclude.conf")
	agent := g.spare(t, 0, "/usr/sbin/qemu-ga -c /run/exclude.conf")
	var gone []string
	g.compareTo(t, agent, command("guest-network-get-interfaces", ""), func(t *testing.T, c *reply, _ reply) {
		gone = nil
		list, _ := c.Return.([]any)
		c.Return = slices.DeleteFunc(list, func(e any) bool {
			i, _ := e.(map[string]any)
			name, _ := i["name"].(string)
			excluded := slices.ContainsFunc(patterns, func(p string) bool {
				ok, err := path.Match(p, name)
				return ok && err == nil
			})
			if excluded {
				gone = append(gone, name)
			}
			return excluded
		})
	})
	slices.Sort(gone)
	if want := []string{"gre1", "veth0", "veth1", "veth2"}; !slices.Equal(gone, want) {
		t.Errorf("left out of the comparison are %q, want %q", gone, want)
	}
	// Routes are not interfaces.
	g.compareTo(t, agent, command("guest-network-get-route", ""), depart)
}
