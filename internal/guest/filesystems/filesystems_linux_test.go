package filesystems

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/disks/diskstest"
	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/qga"
)

// sizes is a statfs that knows the file systems of list. It undoes what the
// agent computes, with units of 512 bytes.
func sizes(tree diskstest.Tree, list []qga.Filesystem) func(string) (unix.Statfs_t, error) {
	return func(path string) (unix.Statfs_t, error) {
		for _, f := range list {
			if tree.Root.Path(f.Mountpoint) == path {
				const unit = 512
				used := *f.UsedBytes / unit
				return unix.Statfs_t{
					Bsize: 4096, Frsize: unit,
					Blocks: *f.TotalBytesPrivileged / unit,
					Bfree:  *f.TotalBytesPrivileged/unit - used,
					Bavail: *f.TotalBytes/unit - used,
				}, nil
			}
		}
		return unix.Statfs_t{}, unix.ENOENT
	}
}

// byMountpoint makes file systems comparable: their disks are sets.
func byMountpoint(t *testing.T, list []qga.Filesystem) map[string]string {
	t.Helper()
	m := make(map[string]string)
	for _, f := range list {
		disks := make(map[string]bool)
		for _, d := range f.Disk {
			disks[text(t, d)] = true
		}
		if len(disks) != len(f.Disk) {
			t.Errorf("%s has a disk twice", f.Mountpoint)
		}
		f.Disk = nil
		m[f.Mountpoint] = text(t, f) + text(t, disks)
	}
	return m
}

func text(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func getFSInfo(t testing.TB, c *commands) []qga.Filesystem {
	t.Helper()
	list, err := c.getFSInfo(t.Context(), qga.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestGetFSInfoOfGuest(t *testing.T) {
	tree := diskstest.Guest(t, true)
	var want []qga.Filesystem
	diskstest.Golden(t, "get-fsinfo", &want)
	compare(t, tree, want)
}

func TestGetFSInfoCaptured(t *testing.T) {
	for _, name := range []string{"virtio", "lvm-on-luks", "md-on-nvme", "no-udev", "s390x"} {
		t.Run(name, func(t *testing.T) {
			guest := guesttest.Captured(t, name)
			var want []qga.Filesystem
			guest.Answer("guest-get-fsinfo", &want)
			switch name {
			case "no-udev": // the C agent asks nobody else
				want[0].Disk[0].Serial = new("QEMU_NVMe_Ctrl_XXXXXXXXX1_1")
			case "md-on-nvme": // and takes the partition of a RAID for one of a disk
				for _, d := range want[1].Disk {
					d.Dev = new(strings.TrimSuffix(*d.Dev, "1") + "2")
					want[0].Disk = append(want[0].Disk, d)
				}
			}
			compare(t, diskstest.Tree{TB: t, Root: guest.Root}, want)
		})
	}
}

// compare has the agent answer for a tree. The order counts, but for that of the
// disks of a file system.
func compare(t *testing.T, tree diskstest.Tree, want []qga.Filesystem) {
	t.Helper()
	c := newCommands(System{Root: tree.Root})
	c.statfs = sizes(tree, want)
	got := getFSInfo(t, c)
	g, w := byMountpoint(t, got), byMountpoint(t, want)
	for point := range w {
		if g[point] != w[point] {
			t.Errorf("%s:\n got %s\nwant %s", point, g[point], w[point])
		}
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i].Mountpoint != want[i].Mountpoint {
			t.Fatalf("the order differs at %d: got %d file systems, want %d", i, len(got), len(want))
		}
	}
}

// The file system is on two whole disks and a logical volume over a third.
func TestBtrfs(t *testing.T) {
	tree := diskstest.New(t)
	device := func(i int) string {
		return fmt.Sprintf("/sys/devices/pci0000:00/0000:00:0%d.0/virtio%d/block/vd%c", i, i, 'a'+i)
	}
	for i := range 4 {
		tree.Driver(fmt.Sprintf("/sys/devices/pci0000:00/0000:00:0%d.0", i), "virtio-pci")
		tree.Disk(device(i), fmt.Sprintf("254:%d", 16*i))
	}
	const dm = "/sys/devices/virtual/block/dm-0"
	tree.Disk(dm, "252:0", device(2))
	const id = "/sys/fs/btrfs/0d2c4a0e-5a39-4a3c-9a8e-3c9e8b6f1d11"
	tree.Dir("/sys/fs/btrfs/features")
	for _, d := range []string{device(0), device(1), dm} {
		tree.Link(id+"/devices/"+d[strings.LastIndex(d, "/")+1:], d)
	}
	tree.File("/proc/self/mountinfo", "36 27 0:29 / /data rw - btrfs /dev/vdb rw\n37 27 0:30 / /single rw - btrfs /dev/vdd rw\n")
	got := make(map[string]string)
	for _, f := range getFSInfo(t, newCommands(System{Root: tree.Root})) {
		for _, d := range f.Disk {
			got[f.Mountpoint] += f.Name + ":" + *d.Dev + " "
		}
	}
	if want := "vdb:/dev/vdc vdb:/dev/vda vdb:/dev/vdb "; got["/data"] != want {
		t.Errorf("got %q, want %q", got["/data"], want)
	}
	if want := "vdd:/dev/vdd "; got["/single"] != want {
		t.Errorf("got %q, want %q", got["/single"], want)
	}
}

// Nothing but the list of mounts is there.
func TestWithoutSysfs(t *testing.T) {
	tree := diskstest.New(t)
	tree.Remove("/sys")
	tree.File("/proc/self/mountinfo", "27 1 8:1 / /gone rw - ext4 /dev/sda1 rw\n")
	want := `[{"name":"8:1","mountpoint":"/gone","type":"ext4","disk":[]}]`
	if got := text(t, getFSInfo(t, newCommands(System{Root: tree.Root}))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	tree.Remove("/proc")
	_, err := newCommands(System{Root: tree.Root}).getFSInfo(t.Context(), qga.Empty{})
	if want := "failed to open mtab file: '/proc/self/mounts'"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestDeadMount has one file system that does not answer: it is listed without
// its size, costs the time limit once and a thread, and comes back when it does.
func TestDeadMount(t *testing.T) { synctest.Test(t, testDeadMount) }

func testDeadMount(t *testing.T) {
	tree := diskstest.New(t)
	tree.File("/proc/self/mountinfo", "27 1 8:1 / / rw - ext4 /dev/sda1 rw\n28 1 8:2 / /dead rw - ext4 /dev/sda2 rw\n29 1 8:3 / /a rw - ext4 /dev/sda3 rw\n")
	c := newCommands(System{Root: tree.Root})
	var hanging atomic.Int32
	release := make(chan struct{})
	c.statfs = func(path string) (unix.Statfs_t, error) {
		if path == tree.Root.Path("/dead") {
			hanging.Add(1)
			<-release
			hanging.Add(-1)
		}
		return unix.Statfs_t{Frsize: 1, Blocks: 10, Bfree: 4, Bavail: 3}, nil
	}
	const good, dead = `"used-bytes":6,"total-bytes":9,"total-bytes-privileged":10,`, ``
	want := func(size string) string {
		return `[{"name":"8:3","mountpoint":"/a","type":"ext4",` + good + `"disk":[]},` +
			`{"name":"8:2","mountpoint":"/dead","type":"ext4",` + size + `"disk":[]},` +
			`{"name":"8:1","mountpoint":"/","type":"ext4",` + good + `"disk":[]}]`
	}
	start := time.Now()
	if got := text(t, getFSInfo(t, c)); got != want(dead) {
		t.Errorf("got %s", got)
	}
	if took := time.Since(start); took != patience {
		t.Errorf("took %v, want %v", took, patience)
	}
	start = time.Now()
	for range 100 {
		if got := text(t, getFSInfo(t, c)); got != want(dead) {
			t.Fatalf("got %s", got)
		}
	}
	if took := time.Since(start); took != 0 {
		t.Errorf("100 times took %v", took)
	}
	if n := hanging.Load(); n != 1 {
		t.Errorf("%d threads hang", n)
	}
	close(release)
	synctest.Wait()
	if got := text(t, getFSInfo(t, c)); got != want(good) {
		t.Errorf("the file system does not come back: got %s", got)
	}
}

// TestAllDead has more file systems hang than there may be threads for.
func TestAllDead(t *testing.T) { synctest.Test(t, testAllDead) }

func testAllDead(t *testing.T) {
	tree := diskstest.New(t)
	tree.File("/proc/self/mountinfo", manyMounts(4096))
	c := newCommands(System{Root: tree.Root})
	release := make(chan struct{})
	defer close(release)
	c.statfs = func(string) (unix.Statfs_t, error) {
		<-release
		return unix.Statfs_t{}, unix.EIO
	}
	start := time.Now()
	if got := getFSInfo(t, c); len(got) != 4096 {
		t.Errorf("got %d file systems", len(got))
	}
	if took := time.Since(start); took > 2*patience {
		t.Errorf("took %v", took)
	}
}

// TestGarbage spoils each file and link of a good tree in turn.
func TestGarbage(t *testing.T) {
	tree := diskstest.Guest(t, true)
	c := newCommands(System{Root: tree.Root})
	good := len(getFSInfo(t, c))
	for _, name := range tree.Files() {
		restore := tree.Spoil(name, "\xff\xfe\x00 - \n1 2 3:4 5\n"+strings.Repeat("9:9 - ", 100))
		got := getFSInfo(t, c)
		if name != "/proc/self/mountinfo" && len(got) < good-1 {
			t.Errorf("%s hides %d file systems", name, good-len(got))
		}
		restore()
	}
	if got := getFSInfo(t, c); len(got) != good {
		t.Error("the tree was not restored")
	}
}

func manyMounts(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "%d 1 252:%d / /var/lib/volumes/%032x/mount\\040point rw,relatime shared:%d - ext4 /dev/mapper/vg-%d rw,stripe=256\n", i+30, i, i, i, i)
	}
	return text.String()
}

// manyVolumes is n mounted logical volumes over eight disks.
func manyVolumes(t testing.TB, n int) *commands {
	t.Helper()
	tree := diskstest.New(t)
	tree.File("/proc/self/mountinfo", manyMounts(n))
	var disks []string
	for i := range 8 {
		pci := fmt.Sprintf("/sys/devices/pci0000:00/0000:00:%02x.0", i)
		tree.Driver(pci, "virtio-pci")
		disks = append(disks, fmt.Sprintf("%s/virtio%d/block/vd%c", pci, i, 'a'+i))
		tree.Disk(disks[i], fmt.Sprintf("254:%d", i*16))
	}
	for i := range n {
		tree.Disk(fmt.Sprintf("/sys/devices/virtual/block/dm-%d", i), fmt.Sprintf("252:%d", i), disks[i%8])
	}
	return newCommands(System{Root: tree.Root})
}

func TestManyMounts(t *testing.T) {
	guesttest.Proportional(t, 4096, 8<<10, func(t *testing.T, n int) func() {
		c := manyVolumes(t, n)
		return func() {
			if list := getFSInfo(t, c); len(list) != n || len(list[0].Disk) != 1 {
				t.Error(len(list))
			}
		}
	})
}

func BenchmarkGetFSInfo4096(b *testing.B) {
	c := manyVolumes(b, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if list := getFSInfo(b, c); len(list) != 4096 || len(list[0].Disk) != 1 {
			b.Fatal(len(list))
		}
	}
}
