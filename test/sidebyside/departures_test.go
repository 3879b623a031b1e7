//go:build linux

package sidebyside

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// TestDepartures has the C agent show what ours departs from on purpose, on a
// system made for that. What is listed in docs/coverage.md as its behaviour must be
// so, and ours as it says.
func TestDepartures(t *testing.T) {
	program := vm.Build(t, "./cmd/qemu-ga").Path
	release := filepath.Join(t.TempDir(), "os-release")
	t.Setenv("QGA_OS_RELEASE", release)
	t.Setenv("TZ", "XXX-3YYY")
	onFixtureSys(t)
	if err := unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	const routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
	for name, text := range map[string]string{
		release:                "NAME='x y'\n",
		"/proc/net/route":      routes,
		"/proc/self/net/route": routes,
		"/sys/devices/system/memory/block_size_bytes":  "none\n",
		"/sys/devices/system/memory/memory7/removable": "1\n",
		"/sys/devices/system/cpu/cpu70000/online":      "1\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, name, text, 0o444)
	}

	c, ours := start(t, harmless(t, cAgent(t))), start(t, harmless(t, program))
	for _, tt := range []struct{ command, arguments, c, ours string }{
		{"guest-get-osinfo", "", `"name": "'x"`, `"name": "x y"`},
		{"guest-get-timezone", "", `{"return": {"zone": "UTC", "offset": 0}}`, `{"return": {"zone": "XXX", "offset": 10800}}`},
		{"guest-network-get-route", "", `"open(\"/proc/net/ipv6_route\"): No such file or directory"`, `"gateway": "10.0.0.1"`},
		{"guest-get-memory-block-info", "", `{"return": {"size": 0}}`, `"sysfs file \"block_size_bytes\": no hexadecimal power of two: \"none\\n\""`},
		{
			"guest-set-memory-blocks", `"mem-blks":[{"phys-index":7,"online":true}]`,
			`{"return": [{"response": "success", "error-code": 2, "phys-index": 7}]}`, `{"return": [{"response": "success", "phys-index": 7}]}`,
		},
		{
			"guest-set-vcpus", `"vcpus":[{"logical-id":70000,"online":true}]`,
			`"could not open /sys/devices/system/cpu/cpu70000//online: Permission denied"`, `{"return": 1}`,
		},
		{"guest-exec-status", `"pid":77`, `"PID ld does not exist"`, `"PID 77 does not exist"`},
	} {
		request := `{"execute":"` + tt.command + `","arguments":{` + tt.arguments + `}}`
		if got := refusal(t, c, request); !strings.Contains(got, tt.c) {
			t.Errorf("%s: the C agent replies %s, want %s", request, got, tt.c)
		}
		if got := refusal(t, ours, request); !strings.Contains(got, tt.ours) {
			t.Errorf("%s: ours replies %s, want %s", request, got, tt.ours)
		}
	}
}
