//go:build linux

package sidebyside

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/qga"
)

// ask sends a command without arguments and decodes what it returns.
func ask[T any](t *testing.T, path, command string) T {
	t.Helper()
	var reply struct {
		Return T
		Error  *qga.Error
	}
	// The C agent complains of the mark that follows.
	text, _, _ := bytes.Cut(exchange(t, path, []byte(`{"execute":"`+command+"\"}\n")), []byte("\n"))
	if err := json.Unmarshal(text, &reply); err != nil || reply.Error != nil {
		t.Fatalf("%s: %s: %v", command, text, err)
	}
	return reply.Return
}

// attachDisk makes a loop device with a partition that has a file system, and
// mounts it twice. It skips what this machine has no means for.
func attachDisk(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Log("without a loop device, as not root")
		return
	}
	const size, first = 16 << 20, 2048 // bytes and sectors
	image := filepath.Join(t.TempDir(), "image")
	run := func(name string, args ...string) (string, bool) {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Logf("%s: %v: %s", name, err, out)
		}
		return strings.TrimSpace(string(out)), err == nil
	}
	// The partition table of a PC: one entry of type Linux.
	table := make([]byte, size)
	entry := table[446:]
	entry[4] = 0x83
	binary.LittleEndian.PutUint32(entry[8:], first)
	binary.LittleEndian.PutUint32(entry[12:], size/512-first)
	copy(table[510:], "\x55\xaa")
	if err := os.WriteFile(image, table, 0o600); err != nil {
		t.Fatal(err)
	}
	disk, ok := run("losetup", "--find", "--show", "--partscan", image)
	if !ok {
		return
	}
	t.Cleanup(func() { run("losetup", "--detach", disk) })
	node := disk + "p1"
	if _, err := os.Stat(node); err != nil {
		t.Log(err)
		node = disk
	}
	if _, ok := run("mkfs.ext4", "-q", "-F", node); !ok {
		return
	}
	place := t.TempDir()
	for _, m := range []struct {
		point string
		args  []string
	}{
		{filepath.Join(place, "a b"), []string{node}},
		{filepath.Join(place, "bound"), []string{"--bind", filepath.Join(place, "a b")}},
	} {
		if err := os.Mkdir(m.point, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, ok := run("mount", append(m.args, m.point)...); !ok {
			return
		}
		t.Cleanup(func() { run("umount", m.point) })
	}
}

// withoutUdev takes the serial numbers from the addresses of ours that the C
// agent has none for because udev does not run: ours finds them anyhow.
func withoutUdev(ours, c *qga.DiskAddress) {
	if _, err := os.Stat("/run/udev/data"); err != nil && ours != nil && c != nil && c.Serial == nil {
		ours.Serial = nil
	}
}

func TestGetDisks(t *testing.T) {
	attachDisk(t)
	get := func(path string) map[string]qga.Disk {
		m := make(map[string]qga.Disk)
		for _, d := range ask[[]qga.Disk](t, path, "guest-get-disks") {
			slices.Sort(d.Dependencies)
			m[d.Name] = d
		}
		return m
	}
	want, got := get(startC(t)), get(start(t, ourAgent(t)))
	if len(want) == 0 {
		t.Fatal("the C agent knows of no disk")
	}
	for name, d := range got {
		withoutUdev(d.Address, want[name].Address)
	}
	compareMaps(t, got, want)
}

func TestGetFSInfo(t *testing.T) {
	attachDisk(t)
	var order [2][]string
	var all [2]map[string]qga.Filesystem
	for i, path := range []string{startC(t), start(t, ourAgent(t))} {
		all[i] = make(map[string]qga.Filesystem)
		for _, f := range ask[[]qga.Filesystem](t, path, "guest-get-fsinfo") {
			order[i] = append(order[i], f.Mountpoint)
			all[i][f.Mountpoint] = f
		}
	}
	want, got := all[0], all[1]
	if len(want) == 0 {
		t.Fatal("the C agent knows of no file system")
	}
	if !slices.Equal(order[0], order[1]) {
		t.Errorf("got %q, want %q", order[1], order[0])
	}
	for point, f := range got {
		c := want[point]
		for i := range min(len(f.Disk), len(c.Disk)) {
			withoutUdev(&f.Disk[i], &c.Disk[i])
		}
		// Others write to the file systems between the two questions.
		const slack = 1 << 30
		for _, size := range [][2]*uint64{{f.UsedBytes, c.UsedBytes}, {f.TotalBytes, c.TotalBytes}} {
			if size[0] != nil && size[1] != nil && max(*size[0], *size[1])-min(*size[0], *size[1]) < slack {
				*size[0] = *size[1]
			}
		}
	}
	compareMaps(t, got, want)
}

func TestGetDiskStats(t *testing.T) {
	get := func(path string) map[string]qga.DiskStatsInfo {
		m := make(map[string]qga.DiskStatsInfo)
		for _, d := range ask[[]qga.DiskStatsInfo](t, path, "guest-get-diskstats") {
			m[d.Name] = d
		}
		return m
	}
	c, ours := startC(t), start(t, ourAgent(t))
	before, got, after := get(c), get(ours), get(c)
	// What was counted in the meantime makes the value ours.
	for name, d := range got {
		g := reflect.ValueOf(d.Stats)
		b, a := reflect.ValueOf(before[name].Stats), reflect.ValueOf(after[name].Stats)
		for i := range g.NumField() {
			own, low, high := g.Field(i).Interface().(*uint64), b.Field(i).Interface().(*uint64), a.Field(i).Interface().(*uint64)
			inProgress := g.Type().Field(i).Name == "IOsInProgress"
			if own != nil && low != nil && high != nil && (*low <= *own && *own <= *high || inProgress) {
				*low = *own
			}
		}
	}
	compareMaps(t, got, before)
}

func compareMaps[V any](t *testing.T, got, want map[string]V) {
	t.Helper()
	show := func(v V) string {
		text, _ := json.Marshal(v)
		return string(text)
	}
	for name, w := range want {
		if g, ok := got[name]; !ok || !reflect.DeepEqual(g, w) {
			t.Errorf("%s:\n got %s\nwant %s", name, show(g), show(w))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is too many", name)
		}
	}
}
