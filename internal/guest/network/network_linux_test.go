package network

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/qga"
)

// inNamespace puts the test into a network namespace of its own, which ends
// with it, and runs the lines there as arguments of ip(8).
func inNamespace(t testing.TB, lines ...string) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	// Never unlocked: the thread ends with the goroutine of the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("network namespace: %v", err)
	}
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v\n%s", err, out)
	}
}

// TestManyInterfaces has more of everything than goes into one datagram.
func TestManyInterfaces(t *testing.T) {
	const pairs, perLink = 40, 200
	lines := []string{"link set lo up"}
	for i := range pairs {
		lines = append(lines, fmt.Sprintf("link add a%d address 02:00:00:00:00:%02x type veth peer name b%d", i, i, i))
	}
	for i := range perLink {
		lines = append(lines,
			fmt.Sprintf("addr add 10.1.%d.1/24 dev a7", i),
			fmt.Sprintf("addr add fd00:%x::1/64 dev a7 nodad", i))
	}
	inNamespace(t, lines...)

	links, addresses, err := snapshot()
	if err != nil {
		t.Fatal(err)
	}
	list := interfaces(links, addresses, nil)
	byName := map[string]qga.Interface{}
	for _, i := range list {
		byName[i.Name] = i
	}
	if len(list) != 1+2*pairs || len(byName) != len(list) {
		t.Errorf("%d interfaces of %d names, want %d", len(list), len(byName), 1+2*pairs)
	}
	a7 := byName["a7"]
	if a7.HardwareAddress == nil || *a7.HardwareAddress != "02:00:00:00:00:07" || a7.Statistics == nil || len(a7.IPAddresses) != 2*perLink {
		t.Fatalf("a7: %d addresses, %s", len(a7.IPAddresses), asJSON(t, a7))
	}
	if first := a7.IPAddresses[0]; first != (qga.IPAddress{Address: "10.1.0.1", Type: qga.IPv4, Prefix: 24}) {
		t.Errorf("a7's first address is %+v", first)
	}
	for i, a := range a7.IPAddresses {
		if (a.Type == qga.IPv4) != (i < perLink) {
			t.Errorf("address %d of a7 is %+v", i, a)
		}
	}
	if b7 := byName["b7"]; b7.IPAddresses != nil || b7.Statistics != nil {
		t.Errorf("b7: %s", asJSON(t, b7))
	}
	if list := interfaces(links, addresses, []string{"a?", "a[1-3]?", "b*"}); len(list) != 1 || list[0].Name != "lo" {
		t.Errorf("but for the excluded: %s", asJSON(t, list))
	}
}

// TestSmallRoom has the kernel write more than there is room for at first.
func TestSmallRoom(t *testing.T) {
	defer func(room int) { firstDatagram = room }(firstDatagram)
	firstDatagram = 100
	links, _, err := snapshot()
	if err != nil || len(links) == 0 {
		t.Errorf("%d links, %v", len(links), err)
	}
}

// TestLargeLink has a link that is described by more than there is room for at first,
// which comes second: the kernel writes about that while the first one is read.
func TestLargeLink(t *testing.T) {
	for _, names := range []int{20, 60} { // of 118 bytes each
		t.Run(fmt.Sprint(names), func(t *testing.T) {
			lines := []string{"link add big type bridge", "link add a0 type veth peer name a1", "addr add 10.9.9.1/24 dev a0"}
			for i := range names {
				lines = append(lines, fmt.Sprintf("link property add dev big altname %s%02d", strings.Repeat("n", 112), i))
			}
			inNamespace(t, lines...)
			links, addresses, err := snapshot()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, i := range interfaces(links, addresses, nil) {
				got = append(got, i.Name)
			}
			for _, want := range []string{"lo", "big", "a0", "a1"} {
				if !slices.Contains(got, want) {
					t.Errorf("got %v, without %s", got, want)
				}
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	tree := func(files map[string]string) Config {
		dir := root.Dir(t.TempDir())
		for name, contents := range files {
			path := dir.Path("/proc/net/" + name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(contents), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return Config{Root: dir}
	}
	v4, v6 := read(t, "route"), read(t, "ipv6_route")
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int
		err   string
	}{
		{"both", map[string]string{"route": v4, "ipv6_route": v6}, 63, ""},
		{"no IPv6", map[string]string{"route": v4}, 9, ""},
		{"no IPv4", map[string]string{"ipv6_route": v6}, 0, `open("/proc/net/route"): No such file or directory`},
		{"nothing", nil, 0, `open("/proc/net/route"): No such file or directory`},
		{"empty", map[string]string{"route": "", "ipv6_route": ""}, 0, ""},
		{"unreadable", map[string]string{"route/x": "", "ipv6_route": v6}, 0, `open("/proc/net/route"): Is a directory`},
		{"unreadable IPv6", map[string]string{"route": v4, "ipv6_route/x": ""}, 0, `open("/proc/net/ipv6_route"): Is a directory`},
		{"cut off", map[string]string{"route": v4[:len(v4)-100], "ipv6_route": v6[:len(v6)-2]}, 61, ""},
	} {
		got, err := tree(tt.files).routes(t.Context(), qga.Empty{})
		if len(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: %d routes, %v, want %d, %s", tt.name, len(got), err, tt.want, tt.err)
		}
		if err == nil && got == nil {
			t.Errorf("%s: null is not an empty list", tt.name)
		}
	}
}

// Counterpart of BenchmarkInterfaces4096 with the kernel's share.
func BenchmarkSnapshot(b *testing.B) {
	for b.Loop() {
		if links, _, err := snapshot(); err != nil || len(links) == 0 {
			b.Fatal(len(links), err)
		}
	}
}

// TestRoutesCaptured asks guests that had no network but the loopback interface, for
// which the kernel has three routes, and one whose routes were not captured.
func TestRoutesCaptured(t *testing.T) {
	const (
		nowhere = `{"iface":"lo","destination":"::","metric":-1,"flags":2097664,"refcnt":1,"use":0,"desprefixlen":"0","source":"::","srcprefixlen":"0","nexthop":"::","version":6}`
		itself  = `{"iface":"lo","destination":"::1","metric":0,"flags":2149580801,"refcnt":2,"use":0,"desprefixlen":"128","source":"::","srcprefixlen":"0","nexthop":"::","version":6}`
	)
	loopback := "[" + nowhere + "," + itself + "," + nowhere + "]"
	for name, want := range map[string]string{
		"virtio": loopback, "lvm-on-luks": loopback, "md-on-nvme": loopback, "no-udev": loopback, "s390x": `open("/proc/net/route"): No such file or directory`,
	} {
		got, err := Config{Root: guesttest.Captured(t, name).Root}.routes(t.Context(), qga.Empty{})
		if got := guesttest.JSON(t, got, err); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}
