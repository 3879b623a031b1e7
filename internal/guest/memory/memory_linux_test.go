package memory

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/qga"
)

// tree makes a System of the files below the directory of memory blocks.
func tree(t testing.TB, files map[string]string) System {
	t.Helper()
	below := make(map[string]string)
	for name, contents := range files {
		below[memoryDir+name] = contents
	}
	return System{Root: guesttest.Tree(t, below)}
}

func TestCaptured(t *testing.T) {
	for _, name := range []string{"virtio", "lvm-on-luks", "md-on-nvme", "no-udev"} {
		guest := guesttest.Captured(t, name)
		s := System{Root: guest.Root}
		var want []qga.MemoryBlock
		guest.Answer("guest-get-memory-blocks", &want)
		slices.SortFunc(want, func(a, b qga.MemoryBlock) int { return cmp.Compare(a.PhysIndex, b.PhysIndex) })
		got, err := s.blocks(t.Context(), qga.Empty{})
		if got, want := guesttest.JSON(t, got, err), guesttest.JSON(t, want, nil); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
		var wantInfo qga.MemoryBlockInfo
		guest.Answer("guest-get-memory-block-info", &wantInfo)
		if info, err := s.blockInfo(t.Context(), qga.Empty{}); err != nil || info != wantInfo {
			t.Errorf("%s: got %+v, %v, want %+v", name, info, err, wantInfo)
		}
	}
}

func TestBlocks(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // the reply, or the error
	}{
		{
			"numeric order, other entries",
			map[string]string{
				"memory10/state": "online\n", "memory10/removable": "1\n", "memory9/state": "offline\n", "memory9/removable": "0\n",
				"memory32/state": "going-offline\n", "memory32/removable": "1\n", "block_size_bytes": "8000000\n", "memoryx/": "", "power/": "",
			},
			`[{"phys-index":9,"online":false,"can-offline":false},{"phys-index":10,"online":true,"can-offline":true},` +
				`{"phys-index":32,"online":false,"can-offline":true}]`,
		},
		{"empty removable", map[string]string{"memory1/state": "online\n", "memory1/removable": ""}, `pread sysfs file "removable": unexpected EOF`},
		{"garbage as removable", map[string]string{"memory1/state": "online\n", "memory1/removable": "\x00\xff"}, `pread sysfs file "removable": neither 0 nor 1: "\x00\xff"`},
		{"more than removable", map[string]string{"memory1/state": "online\n", "memory1/removable": "01\n"}, `pread sysfs file "removable": neither 0 nor 1: "01\n"`},
		{"empty state", map[string]string{"memory1/state": "", "memory1/removable": "1\n"}, `pread sysfs file "state": unexpected EOF`},
		{"state cut off", map[string]string{"memory1/state": "onl", "memory1/removable": "1\n"}, `pread sysfs file "state": no state of memory: "onl"`},
		{"more than a state", map[string]string{"memory1/state": "online\nx", "memory1/removable": "1\n"}, `pread sysfs file "state": no state of memory: "online\nx"`},
		{"garbage as state", map[string]string{"memory1/state": strings.Repeat("x", 4000)}, `pread sysfs file "state": no state of memory: "xxxxxxxxxxxxxxxxxxxx"`},
		{"no removable", map[string]string{"memory1/state": "online"}, `[{"phys-index":1,"online":true,"can-offline":false}]`},
		{"no state", map[string]string{"memory1/removable": "1"}, `[{"phys-index":1,"online":true,"can-offline":false}]`},
		{"unreadable removable", map[string]string{"memory1/state": "online", "memory1/removable/": ""}, `pread sysfs file "removable": Is a directory`},
		{"unreadable state", map[string]string{"memory1/state/": ""}, `pread sysfs file "state": Is a directory`},
		{"looping state", map[string]string{"memory1/state": "->state"}, `open sysfs file "state": Too many levels of symbolic links`},
		{"no hotplug", nil, `[]`},
		{"no blocks", map[string]string{"block_size_bytes": "80"}, "guest reported zero memory blocks!"},
		{"not a directory", map[string]string{"../memory": ""}, `Can't open directory"/sys/devices/system/memory/": Not a directory`},
		// As it is between the listing and the look.
		{"unplugged", map[string]string{"memory1/state": "offline", "memory2": "->gone"}, `[{"phys-index":1,"online":false,"can-offline":false}]`},
	} {
		got, err := tree(t, tt.files).blocks(t.Context(), qga.Empty{})
		if s := guesttest.JSON(t, got, err); s != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, s, tt.want)
		}
	}
}

func TestSetBlocks(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the files of /proc that refuse to be written refuse to be opened by others than root")
	}
	blocks := map[string]string{
		"memory0/state": "online\n", "memory1/state": "offline\n", "memory2/removable": "1\n",
		"memory3/state": "->/proc/version", "memory4/state": "->/proc/sys/kernel/ostype", "memory5/state": "", "memory6/state/": "",
		"memory7/state": "going-offline\n", "memory8/state": "x\n",
	}
	for _, tt := range []struct {
		name   string
		files  map[string]string
		index  uint64
		online bool
		want   string
		state  string // of the block thereafter
	}{
		{"online", blocks, 1, true, `"response":"success"`, "online"},
		{"offline", blocks, 0, false, `"response":"success"`, "offline"},
		{"already online", blocks, 0, true, `"response":"success"`, "online"},
		{"already offline", blocks, 1, false, `"response":"success"`, "offline"},
		{"on its way out, online", blocks, 7, true, `"response":"success"`, "online"},
		{"on its way out, offline", blocks, 7, false, `"response":"success"`, "going-offline"},
		{"no such", blocks, 4096, true, `"response":"not-found","error-code":2`, ""},
		{"largest", blocks, 1<<64 - 1, false, `"response":"not-found","error-code":2`, ""},
		{"always online", blocks, 2, true, `"response":"success"`, ""},
		{"cannot offline", blocks, 2, false, `"response":"operation-not-supported","error-code":2`, ""},
		{"write fails", blocks, 3, true, `"response":"operation-failed","error-code":5`, ""},
		{"not writable", blocks, 4, true, `"response":"operation-failed","error-code":13`, ""},
		{"no contents", blocks, 5, true, `"response":"operation-failed","error-code":0`, ""},
		{"unknown state, online", blocks, 8, true, `"response":"success"`, "online"},
		{"unknown state, offline", blocks, 8, false, `"response":"success"`, "offline"},
		{"unreadable", blocks, 6, true, `"response":"operation-failed","error-code":21`, ""},
		{"no hotplug, online", nil, 0, true, `"response":"operation-not-supported","error-code":2`, ""},
		{"no hotplug, offline", nil, 0, false, `"response":"operation-not-supported","error-code":2`, ""},
		{"not a directory", map[string]string{"../memory": ""}, 0, true, `"response":"operation-failed","error-code":20`, ""},
	} {
		s := tree(t, tt.files)
		got, err := s.setBlocks(t.Context(), qga.SetMemoryBlocksArgs{MemBlks: []qga.MemoryBlock{{PhysIndex: tt.index, Online: tt.online}}})
		if o, want := guesttest.JSON(t, got, err), fmt.Sprintf(`[{"phys-index":%d,%s}]`, tt.index, tt.want); o != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, o, want)
		}
		if tt.state == "" {
			continue
		}
		// A driver takes the write as a whole; in a plain file the end of what
		// was there remains.
		if state, err := s.Root.ReadAttribute(memoryDir + blockName(tt.index) + "state"); err != nil || !strings.HasPrefix(string(state), tt.state) {
			t.Errorf("%s: left %q, %v, want %q", tt.name, state, err, tt.state)
		}
	}

	// One result for each, in order, whatever happened to the one before.
	got, err := tree(t, blocks).setBlocks(t.Context(), qga.SetMemoryBlocksArgs{MemBlks: []qga.MemoryBlock{
		{PhysIndex: 9, Online: true}, {PhysIndex: 1, Online: true}, {PhysIndex: 2}, {PhysIndex: 1, Online: true},
	}})
	want := `[{"phys-index":9,"response":"not-found","error-code":2},{"phys-index":1,"response":"success"},` +
		`{"phys-index":2,"response":"operation-not-supported","error-code":2},{"phys-index":1,"response":"success"}]`
	if o := guesttest.JSON(t, got, err); o != want {
		t.Errorf("several:\n got %s\nwant %s", o, want)
	}
	if got, err := tree(t, blocks).setBlocks(t.Context(), qga.SetMemoryBlocksArgs{}); guesttest.JSON(t, got, err) != "[]" {
		t.Errorf("none: %v, %v", got, err)
	}
}

func TestBlockInfo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"128 MiB", map[string]string{"block_size_bytes": "8000000\n"}, `{"size":134217728}`},
		{"with prefix", map[string]string{"block_size_bytes": "0x80\n"}, `{"size":128}`},
		{"cut off", map[string]string{"block_size_bytes": "8000"}, `pread sysfs file "block_size_bytes": unexpected EOF`},
		{"zero", map[string]string{"block_size_bytes": "0\n"}, `sysfs file "block_size_bytes": no hexadecimal power of two: "0\n"`},
		{"garbage in a digit", map[string]string{"block_size_bytes": "8E00000\n"}, `sysfs file "block_size_bytes": no hexadecimal power of two: "8E00000\n"`},
		{"long garbage", map[string]string{"block_size_bytes": strings.Repeat("x", 4000) + "\n"}, `sysfs file "block_size_bytes": no hexadecimal power of two: "xxxxxxxxxxxxxxxxxxxx"`},
		{"garbage", map[string]string{"block_size_bytes": "zzz\n"}, `sysfs file "block_size_bytes": no hexadecimal power of two: "zzz\n"`},
		{"empty", map[string]string{"block_size_bytes": ""}, `pread sysfs file "block_size_bytes": unexpected EOF`},
		{"unreadable", map[string]string{"block_size_bytes/": ""}, `pread sysfs file "block_size_bytes": Is a directory`},
		{"missing", map[string]string{"memory0/": ""}, `open sysfs file "block_size_bytes": No such file or directory`},
		{"no hotplug", nil, `open("/sys/devices/system/memory/"): No such file or directory`},
		{"not a directory", map[string]string{"../memory": ""}, `open("/sys/devices/system/memory/"): Not a directory`},
	} {
		got, err := tree(t, tt.files).blockInfo(t.Context(), qga.Empty{})
		if s := guesttest.JSON(t, got, err); s != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, s, tt.want)
		}
	}
}

func manyBlocks(t testing.TB, n int) System {
	t.Helper()
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("memory%d/state", i)] = "online\n"
		files[fmt.Sprintf("memory%d/removable", i)] = "1\n"
	}
	return tree(t, files)
}

func TestManyBlocks(t *testing.T) {
	guesttest.Proportional(t, 1024, 16<<10, func(t *testing.T, n int) func() {
		s := manyBlocks(t, n)
		return func() {
			if list, err := s.blocks(t.Context(), qga.Empty{}); err != nil || len(list) != n {
				t.Error(len(list), err)
			}
		}
	})
}

func BenchmarkBlocks1024(b *testing.B) {
	s := manyBlocks(b, 1024)
	for b.Loop() {
		if list, err := s.blocks(b.Context(), qga.Empty{}); err != nil || len(list) != 1024 {
			b.Fatal(len(list), err)
		}
	}
}
