//go:build linux

package sidebyside

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/qga"
)

func TestMemoryBlocks(t *testing.T) {
	c, ours := startC(t), start(t, ourAgent(t))
	theirs, our := steadyReplies(t, c, ours, `{"execute":"guest-get-memory-blocks"}`)
	list := returnOf[[]qga.MemoryBlock](t, theirs)
	slices.SortFunc(list, func(a, b qga.MemoryBlock) int { return cmp.Compare(a.PhysIndex, b.PhysIndex) }) // ours are
	equalJSON(t, "guest-get-memory-blocks", list, returnOf[[]qga.MemoryBlock](t, our))

	theirs, our = steadyReplies(t, c, ours, `{"execute":"guest-get-memory-block-info"}`)
	if !bytes.Equal(our, theirs) {
		t.Errorf("guest-get-memory-block-info: got %s, want %s", our, theirs)
	}
}

// TestSetMemoryBlocks sets blocks that are files in a temporary file system.
// They have numbers that no real one has.
func TestSetMemoryBlocks(t *testing.T) {
	onFixtureSys(t)
	c, ours := startC(t), start(t, ourAgent(t))
	const dir = "/sys/devices/system/memory"
	set := func(index string, online bool) string {
		return fmt.Sprintf(`{"execute":"guest-set-memory-blocks","arguments":{"mem-blks":[{"phys-index":%s,"online":%t}]}}`, index, online)
	}
	const (
		get  = `{"execute":"guest-get-memory-blocks"}`
		info = `{"execute":"guest-get-memory-block-info"}`
	)
	files := map[string]string{
		"memory9000000/state": "online\n", "memory9000001/state": "offline\n", "memory9000002/removable": "1",
		"memory9000003/state": "", "memory9000004/state": "going-offline\n",
	}
	for _, tt := range []struct {
		request string
		files   map[string]string
	}{
		{get, nil},
		{info, nil},
		{get, map[string]string{"block_size_bytes": "8000000\n"}},
		{info, map[string]string{"block_size_bytes": "8000000\n"}},
		{info, map[string]string{"block_size_bytes": ""}},
		{info, map[string]string{"block_size_bytes/": ""}},
		{info, map[string]string{"power/": ""}},
		{get, map[string]string{"memory9000000/state": "online", "memory9000000/removable": "1\n", "power/": ""}},
		{get, map[string]string{"memory9000000/state": "offline", "memory9000000/removable": "0\n"}},
		{get, map[string]string{"memory9000000/state": "going-offline", "memory9000000/removable": "1"}},
		{get, map[string]string{"memory9000000/state": "online"}},
		{get, map[string]string{"memory9000000/removable": "1"}},
		{get, map[string]string{"memory9000000/state": ""}},
		{get, map[string]string{"memory9000000/state": "online", "memory9000000/removable": ""}},
		{get, map[string]string{"memory9000000/state/": ""}},
		{set("9000000", true), nil},
		{set("9000000", false), nil},
		{set("9000000", true), files},
		{set("9000000", false), files},
		{set("9000001", true), files},
		{set("9000001", false), files},
		{set("9000002", false), files},
		{set("9000003", true), files},
		{set("9000004", true), files},
		{set("9000004", false), files},
		{set("9000009", false), files},
		{set("18446744073709551615", true), files},
	} {
		replaceFiles(t, dir, tt.files)
		want := firstReply(t, c, tt.request)
		then := filesIn(t, dir, tt.files)
		replaceFiles(t, dir, tt.files)
		got := firstReply(t, ours, tt.request)
		if !bytes.Equal(got, want) {
			t.Errorf("%s with %q:\n got %s\nwant %s", tt.request, tt.files, got, want)
		}
		if got := filesIn(t, dir, tt.files); !maps.Equal(got, then) {
			t.Errorf("%s: left %q, want %q", tt.request, got, then)
		}
	}

	replaceFiles(t, dir, files)
	if err := unix.Mount("", "/sys", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{set("9000000", true), set("9000000", false)} {
		if want, got := firstReply(t, c, request), firstReply(t, ours, request); !bytes.Equal(got, want) {
			t.Errorf("read-only: %s:\n got %s\nwant %s", request, got, want)
		}
	}
}
