package network

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/qga"
)

func read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestParseRoutes compares with what the C agent 11.1.3 replied where the two
// files of testdata were /proc/net/route and /proc/net/ipv6_route.
func TestParseRoutes(t *testing.T) {
	var c struct{ Return []qga.Route }
	decoder := json.NewDecoder(strings.NewReader(read(t, "routes.json")))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	got := append(parseRoutes4(read(t, "route")), parseRoutes6(read(t, "ipv6_route"))...)
	if len(got) != len(c.Return) {
		t.Fatalf("got %d routes, want %d", len(got), len(c.Return))
	}
	for i, want := range c.Return {
		// The C agent extends the sign of these 32 bits.
		*want.Flags = uint64(uint32(*want.Flags))
		if got, want := asJSON(t, got[i]), asJSON(t, want); got != want {
			t.Errorf("route %d:\n got %s\nwant %s", i, got, want)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

func TestParseRoutesGarbage(t *testing.T) {
	const (
		good4 = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
		good6 = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n"
	)
	bad4, bad6 := good4[:40]+"\n"+good4[:20]+good4, good6[:100]+"\n"+good6[:20]+good6
	for _, r := range [][2]string{
		{"0003", "zzz"},
		{"010200C0", "10200C0"},
		{"\t0\n", "\t-2147483649\n"},
		{"\t0\n", "\t4294967296\n"},
		{"\t0\n", "\t0\t0\n"},
	} {
		bad4 += strings.Replace(good4, r[0], r[1], 1)
	}
	for _, r := range [][2]string{
		{"fd00", "fd"},
		{"fd00", "fdxy"},
		{" 40 ", " 81 "},
		{"\n", " more\n"},
	} {
		bad6 += strings.Replace(good6, r[0], r[1], 1)
	}
	// The last lines are whole but for their ends, so nobody can say what is missing.
	if n := len(parseRoutes4("Iface\tDestination\tGateway\n" + good4 + bad4 + good4 + good4[:len(good4)-1])); n != 2 {
		t.Errorf("IPv4: %d routes, want 2", n)
	}
	signed := strings.Replace(good4, "\t0\t0\t0\t", "\t0\t0\t-1\t", 1) // as older kernels have the largest metric
	if r := parseRoutes4(signed); len(r) != 1 || r[0].Metric != -1 {
		t.Errorf("a metric with a sign: %+v", r)
	}
	if n := len(parseRoutes6(good6 + bad6 + good6 + good6[:len(good6)-1])); n != 2 {
		t.Errorf("IPv6: %d routes, want 2", n)
	}
}

func FuzzParseRoutes(f *testing.F) {
	f.Add(read(f, "route"))
	f.Add(read(f, "ipv6_route"))
	f.Fuzz(func(t *testing.T, data string) {
		lines := strings.Count(data, "\n") + 1
		for version, routes := range map[int64][]qga.Route{4: parseRoutes4(data), 6: parseRoutes6(data)} {
			if len(routes) > lines {
				t.Errorf("%d routes of %d lines", len(routes), lines)
			}
			for _, r := range routes {
				if r.Version != version || r.Iface == "" || r.Destination == "" || *r.Flags > 1<<32-1 {
					t.Errorf("%+v", r)
				}
			}
		}
	})
}

func BenchmarkParseRoutes4096(b *testing.B) {
	_, line, _ := strings.Cut(read(b, "ipv6_route"), "\n")
	data := strings.Repeat(line[:strings.IndexByte(line, '\n')+1], 4096)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if n := len(parseRoutes6(data)); n != 4096 {
			b.Fatal(n)
		}
	}
}
