package network

import (
	"fmt"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/qga"
)

func TestInterfaces(t *testing.T) {
	links := []link{
		{index: 1, name: "lo"},
		{index: 7, name: "eth0", hardware: [6]byte{2, 0xfc, 0, 0, 0, 1}, statistics: qga.InterfaceStatistics{RxBytes: 7}},
		{index: 3, name: "veth1", hardware: [6]byte{2, 0, 0, 0, 0, 3}, statistics: qga.InterfaceStatistics{RxBytes: 3}},
	}
	of := func(index int32, label, text string, prefix int64) address {
		return address{index, label, qga.IPAddress{Address: text, Type: qga.IPv4, Prefix: prefix}}
	}
	const (
		lo    = `{"name":"lo","hardware-address":"00:00:00:00:00:00"}`
		veth1 = `{"name":"veth1","hardware-address":"02:00:00:00:00:03"}`

		counters = `"statistics":{"rx-bytes":%d,"rx-packets":0,"rx-errs":0,"rx-dropped":0,"tx-bytes":0,"tx-packets":0,"tx-errs":0,"tx-dropped":0}`
		address1 = `{"ip-address":"10.0.0.1","ip-address-type":"ipv4","prefix":24}`
		address2 = `{"ip-address":"10.0.0.2","ip-address-type":"ipv4","prefix":32}`
	)
	eth0 := `{"name":"eth0","hardware-address":"02:fc:00:00:00:01","ip-addresses":[` + address1 + `],` + fmt.Sprintf(counters, 7) + `}`
	for _, tt := range []struct {
		name      string
		addresses []address
		exclude   []string
		want      string
	}{
		{
			"none has an address", nil, nil,
			`[` + lo + `,{"name":"eth0","hardware-address":"02:fc:00:00:00:01"},` + veth1 + `]`,
		},
		{"one has", []address{of(7, "", "10.0.0.1", 24)}, nil, `[` + lo + `,` + eth0 + `,` + veth1 + `]`},
		{
			"an alias is an interface without counters",
			[]address{of(7, "eth0", "10.0.0.1", 24), of(7, "eth0:1", "10.0.0.1", 24), of(7, "eth0:1", "10.0.0.2", 32)},
			nil,
			`[` + lo + `,` + eth0 + `,` + veth1 + `,{"name":"eth0:1","hardware-address":"02:fc:00:00:00:01","ip-addresses":[` + address1 + `,` + address2 + `]}]`,
		},
		{
			"a label that is no alias", // the C agent 11.1.3 likewise
			[]address{of(7, "eth0x", "10.0.0.2", 32)},
			nil,
			`[` + lo + `,{"name":"eth0","hardware-address":"02:fc:00:00:00:01"},` + veth1 + `,{"name":"eth0x","ip-addresses":[` + address2 + `]}]`,
		},
		{
			"the label is another interface", // likewise
			[]address{of(7, "veth1", "10.0.0.2", 32), of(7, "eth0", "10.0.0.1", 24)},
			nil,
			`[` + lo + `,` + eth0 + `,{"name":"veth1","hardware-address":"02:00:00:00:00:03","ip-addresses":[` + address2 + `],` + fmt.Sprintf(counters, 3) + `}]`,
		},
		{"of a link that has gone", []address{of(7, "eth0", "10.0.0.1", 24), of(9, "gone", "10.0.0.2", 32)}, nil, `[` + lo + `,` + eth0 + `,` + veth1 + `]`},
		{
			"excluded",
			[]address{of(7, "eth0", "10.0.0.1", 24), of(7, "eth0:1", "10.0.0.2", 32), of(3, "veth1:7", "10.0.0.2", 32)},
			[]string{"l?", "[", "veth*", "*:1"},
			`[` + eth0 + `]`,
		},
		{"all excluded", []address{of(7, "eth0", "10.0.0.1", 24)}, []string{"*"}, `[]`},
	} {
		if got := asJSON(t, interfaces(links, tt.addresses, tt.exclude)); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// manyLinks is n interfaces with an address each.
func manyLinks(n int) (links []link, addresses []address) {
	for i := range int32(n) {
		name := fmt.Sprintf("veth%d", i)
		links = append(links, link{index: i + 1, name: name})
		addresses = append(addresses, address{i + 1, name, qga.IPAddress{Address: "10.0.0.1", Type: qga.IPv4, Prefix: 8}})
	}
	return links, addresses
}

func TestManyLinks(t *testing.T) {
	guesttest.Proportional(t, 4096, 1<<10, func(t *testing.T, n int) func() {
		links, addresses := manyLinks(n)
		return func() {
			if list := interfaces(links, addresses, []string{"docker*"}); len(list) != n {
				t.Error(len(list))
			}
		}
	})
}

func BenchmarkInterfaces4096(b *testing.B) {
	links, addresses := manyLinks(4096)
	for b.Loop() {
		if n := len(interfaces(links, addresses, []string{"docker*"})); n != 4096 {
			b.Fatal(n)
		}
	}
}
