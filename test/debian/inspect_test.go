//go:build linux

package debian

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// inspections are the commands that change nothing.
var inspections = []string{
	"guest-ping",
	"guest-info",
	"guest-get-time",
	"guest-network-get-interfaces",
	"guest-network-get-route",
	"guest-get-disks",
	"guest-get-diskstats",
	"guest-get-fsinfo",
	"guest-get-vcpus",
	"guest-get-cpustats",
	"guest-get-load",
	"guest-get-memory-blocks",
	"guest-get-memory-block-info",
	"guest-get-osinfo",
	"guest-get-host-name",
	"guest-get-timezone",
	"guest-get-users",
	"guest-fsfreeze-status",
	"guest-get-devices",
}

// testInspect asks both agents about the same guest.
func testInspect(t *testing.T, g *guest) {
	for _, name := range inspections {
		t.Run(name, func(t *testing.T) { g.compare(t, command(name, "")) })
	}
}

// compare has both agents answer a request. What moves on its own must be
// between what the C agent said before and what it says after it; some counters
// go back now and then, and things happen between two questions, so that there
// are several attempts.
func (g *guest) compare(t *testing.T, request string) {
	t.Helper()
	g.compareTo(t, g.ours, request, depart)
}

// compareTo has the C agent and one of ours answer a request, of which expect makes of
// the reply of the first what is expected of the second.
func (g *guest) compareTo(t *testing.T, agent *host, request string, expect func(t *testing.T, c *reply, ours reply)) {
	t.Helper()
	compareAgents(t, g.c, agent, request, expect)
}

// compareAgents does so with any two agents.
func compareAgents(t *testing.T, c, ours *host, request string, expect func(t *testing.T, c *reply, ours reply)) {
	t.Helper()
	var diffs []string
	for range 10 {
		before, reply, after := c.ask(t, request), ours.ask(t, request), c.ask(t, request)
		expect(t, &before, reply)
		if diffs = differences(before, reply, after); len(diffs) == 0 {
			return
		}
	}
	for _, d := range diffs {
		t.Error(d)
	}
}

// depart makes of a reply of the C agent what ours answers on purpose, as
// docs/coverage.md lists it.
func depart(t *testing.T, c *reply, ours reply) {
	list, _ := c.Return.([]any)
	our, _ := ours.Return.([]any)
	// The C agent of the image may be a newer one than ours goes by.
	if info, ok := c.Return.(map[string]any); ok && info["version"] != nil {
		o, _ := ours.Return.(map[string]any)
		if version, _ := o["version"].(string); version != "" {
			info["version"] = version
		}
	}
	for _, e := range list {
		e, _ := e.(map[string]any)
		// The flags of a route are 32 bits, and not to be extended by their sign.
		if flags, ok := e["flags"].(json.Number); ok {
			n, err := strconv.ParseUint(flags.String(), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			e["flags"] = json.Number(fmt.Sprint(uint32(n)))
		}
		// Of the devices of a btrfs, the C agent names one.
		if e["type"] == "btrfs" {
			one, _ := e["disk"].([]any)
			for _, o := range our {
				o, _ := o.(map[string]any)
				both, _ := o["disk"].([]any)
				if o["mountpoint"] != e["mountpoint"] || len(one) != 1 || len(both) != 2 {
					continue
				}
				if slices.ContainsFunc(both, func(d any) bool { return text(d) == text(one[0]) }) {
					e["disk"] = both
				}
			}
		}
	}
}

// differences lists what is in one reply and not in the other.
func differences(before, ours, after reply) []string {
	if before.Error != nil || ours.Error != nil {
		if before.String() != ours.String() {
			return []string{fmt.Sprintf("got %v\nwant %v", ours, before)}
		}
		return nil
	}
	return diff("", before.Return, ours.Return, after.Return)
}

// diff compares values, of which path says where in the reply they are.
func diff(path string, before, ours, after any) []string {
	switch b := before.(type) {
	case map[string]any:
		o, ok := ours.(map[string]any)
		a, _ := after.(map[string]any)
		if ok {
			var diffs []string
			for _, name := range slices.Sorted(maps.Keys(merged(b, o))) {
				was, had := b[name]
				is, has := o[name]
				switch {
				case !has:
					diffs = append(diffs, fmt.Sprintf("%s.%s: absent, want %v", path, name, text(was)))
				case !had:
					diffs = append(diffs, fmt.Sprintf("%s.%s: got %v, want none", path, name, text(is)))
				default:
					diffs = append(diffs, diff(path+"."+name, was, is, a[name])...)
				}
			}
			return diffs
		}
	case []any:
		if o, ok := ours.([]any); ok {
			a, _ := after.([]any)
			return diff(path, byKey(b), byKey(o), byKey(a))
		}
	case json.Number:
		if o, ok := ours.(json.Number); ok && between(b, o, after) {
			return nil
		}
	default:
		if before == ours {
			return nil
		}
	}
	return []string{fmt.Sprintf("%s: got %v, want %v", path, text(ours), text(before))}
}

// between tells whether a number is one that the C agent could have said, too.
func between(before, ours json.Number, after any) bool {
	if before == ours || after == ours {
		return true
	}
	a, ok := after.(json.Number)
	if !ok {
		return false
	}
	low, errLow := before.Int64()
	n, err := ours.Int64()
	high, errHigh := a.Int64()
	if errLow == nil && err == nil && errHigh == nil {
		return min(low, high) <= n && n <= max(low, high)
	}
	x, _ := before.Float64()
	y, _ := ours.Float64()
	z, _ := a.Float64()
	return min(x, z) <= y && y <= max(x, z)
}

// byKey makes a list a set: its elements by what they are about.
func byKey(list []any) map[string]any {
	m := make(map[string]any)
	for _, e := range list {
		key := text(e)
		if o, ok := e.(map[string]any); ok {
			var parts []string
			for _, member := range []string{
				"name", "mountpoint", "logical-id", "phys-index", "cpu", "ip-address", "user",
				"iface", "destination", "desprefixlen", "mask", "metric", "gateway", "nexthop", "dev",
			} {
				v, ok := o[member]
				if _, isCounter := v.(json.Number); isCounter && member == "user" { // of a processor's time
					continue
				}
				if ok {
					parts = append(parts, text(v))
				}
			}
			key = strings.Join(parts, " ")
		}
		for m[key] != nil {
			key += "'"
		}
		m[key] = e
	}
	return m
}

func merged(a, b map[string]any) map[string]any {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

func text(v any) string {
	b, err := json.Marshal(v)
	return cmp.Or(string(b), fmt.Sprint(err))
}
