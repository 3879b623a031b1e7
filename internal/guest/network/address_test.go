package network

import (
	"net/netip"
	"testing"
)

// The texts are those that the C agent 11.1.3 gave for these addresses.
func TestIPv6Text(t *testing.T) {
	for _, want := range []string{
		"::", "::1", "::1:0:0", "1:0:2:3:4:5:6:7", "1:0:0:2::3", "1:0:0:2::", "2001:db8:6:10::", "fe80::fc:ff:fe00:1", "ff00::",
		"::ffff:0.0.0.0", "::ffff:1.2.3.5", "::1.2.3.4", "::1.2.0.0",
	} {
		a := netip.MustParseAddr(want)
		if got := ipv6Text(a.As16()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func FuzzIPv6Text(f *testing.F) {
	for _, s := range []string{"::", "::1", "1::", "1:0:0:2:0:0:0:3", "0:1:0:1:0:1:0:1", "::ffff:1.2.3.4", "::1.2.3.4"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 16 {
			return
		}
		a := netip.AddrFrom16([16]byte(b))
		want := a.String()
		if compatible := netip.MustParsePrefix("::/96"); compatible.Contains(a) && b[12]|b[13] != 0 {
			want = "::" + netip.AddrFrom4([4]byte(b[12:])).String()
		}
		if got := ipv6Text([16]byte(b)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
