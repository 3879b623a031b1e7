package mounts

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

func list(t *testing.T, dir root.Dir) []Mount {
	t.Helper()
	got, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func check(t *testing.T, got, want []Mount) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		var g, w Mount
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("mount %d:\n got %+v\nwant %+v", i, g, w)
		}
	}
}

// What the C agent makes of these lines, and where it does not recover from
// garbage what it should.
func TestMountinfo(t *testing.T) {
	dir := guesttest.Tree(t, map[string]string{
		"/sys/class/block/sdc/dev": "8:32\n",
		"/etc/passwd":              "",
		"/proc/self/mountinfo": `22 27 0:20 / /sys rw,nosuid - sysfs sysfs rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
garbage

31 27 0:40 / /nfs rw - nfs4 server:/x rw,addr=1.2.3.4
28 1 254:99 / /mnt/x\043y\777z\0 rw shared:1 master:2 - ext4 /dev/vda9 rw
29 1 7:0 / /cut rw shared:1 master:2 - xfs
36 27 0:29 / /mnt/c rw - btrfs /dev/sdc rw,subvolid=5,subvol=/
37 27 0:29 /sv /mnt/s\040p rw - btrfs /dev/sdc rw,subvolid=256,subvol=/sv
38 27 0:30 / /lost rw - btrfs /dev/gone rw
39 27 0:31 / /file rw - btrfs /etc/passwd rw
40 27 0:31 / /relative rw - btrfs none rw
41 27 0:32 / /other rw - btrfs.x /dev/sdc rw
32 1 x:1 / /n rw - ext4 /dev/x rw
33 1 8:-1 / /n rw - ext4 /dev/x rw
34 1 8 / /n rw - ext4 /dev/x rw
42 27 254:0 /srv /srv\134x rw - ext4 /dev/vda rw
43 27 7:3 / /nbsp` + "\u00a0\u0085" + `end  rw - fuse.x\040y /dev/loop3 rw
45 27 254:7 / /locked rw - ext4 /dev/vda7 errors=remount-ro,ro
46 27 254:8 / /view ro - ext4 /dev/vda8 rw,errors=remount-ro
44 27 300:5 / /last rw - ext4 /dev/q rw
47 27 300:6 / /cut-off rw - ext4 /dev/q1`,
	})
	check(t, list(t, dir), []Mount{
		{Major: 254, Minor: 0, Point: "/", Type: "ext4", Source: "/dev/vda", Others: []string{`/srv\x`}},
		{Major: 254, Minor: 99, Point: `/mnt/x#y\777z\0`, Type: "ext4", Source: "/dev/vda9"},
		{Major: 8, Minor: 32, Point: "/mnt/c", Type: "btrfs", Source: "/dev/sdc", Others: []string{"/mnt/s p"}},
		{Major: 7, Minor: 3, Point: "/nbsp\u00a0\u0085end", Type: "fuse.x y", Source: "/dev/loop3"},
		{Major: 254, Minor: 7, Point: "/locked", Type: "ext4", Source: "/dev/vda7", ReadOnly: true},
		{Major: 254, Minor: 8, Point: "/view", Type: "ext4", Source: "/dev/vda8"},
		{Major: 300, Minor: 5, Point: "/last", Type: "ext4", Source: "/dev/q"},
	})
}

func TestMounts(t *testing.T) {
	dir := guesttest.Tree(t, map[string]string{
		"/sys/class/block/vda/dev": "254:0\n",
		"/dev/loop0":               "a file, no device",
		"/proc/self/mounts": `/dev/vda / ext4 rw 0 0
/dev/vda /bind ext4 rw 0 0
/dev/nope /n1 ext4 rw 0 0
/dev/nope2 /n2 ext4 rw 0 0
tmpfs /t tmpfs rw 0 0
//srv/x /c cifs rw 0 0
//srv/y /s smbfs rw 0 0
/sys /dir none rw 0 0
/dev/loop0 /a\040b ext4 rw 0 0
# comment
/dev/loop1 /short
/dev/loop2 /cut-off ext`,
	})
	check(t, list(t, dir), []Mount{
		{Major: 254, Minor: 0, Point: "/", Type: "ext4", Source: "/dev/vda", Others: []string{"/bind"}},
		{Point: "/n1", Type: "ext4", Source: "/dev/nope"},
		{Point: "/n2", Type: "ext4", Source: "/dev/nope2"},
		{Point: "/a b", Type: "ext4", Source: "/dev/loop0"},
	})
}

func TestNeitherFile(t *testing.T) {
	_, err := List(guesttest.Tree(t, nil))
	if want := "failed to open mtab file: '/proc/self/mounts'"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := list(t, guesttest.Tree(t, map[string]string{"/proc/self/mountinfo": ""})); len(got) != 0 {
		t.Errorf("nothing mounted: got %v", got)
	}
}

// The number of a device comes from its node, through links.
func TestDeviceNode(t *testing.T) {
	dir := guesttest.Tree(t, map[string]string{"/dev/mapper/control": "", "/sys/class/block/sdb/dev": "8:16\n"})
	if err := unix.Mknod(dir.Path("/dev/dm-3"), unix.S_IFBLK|0o600, int(unix.Mkdev(252, 3))); err != nil {
		t.Skip(err)
	}
	for name, target := range map[string]string{
		"/dev/mapper/vg-lv": "../dm-3", "/dev/absolute": "/dev/dm-3", "/dev/loop": "loop", "/dev/escape": "../../../../../../../dev/dm-3",
	} {
		if err := os.Symlink(target, dir.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string][2]uint32{
		"/dev/dm-3": {252, 3}, "/dev/mapper/vg-lv": {252, 3}, "/dev/absolute": {252, 3}, "/dev/escape": {252, 3},
		"/dev/loop": {}, "/dev/mapper": {}, "/dev/mapper/control": {}, "/dev/sdb": {8, 16}, "sdb": {}, "": {},
	} {
		major, minor := device(dir, name)
		if got := [2]uint32{major, minor}; got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}

// The root of this system is in the list, under the number that stat(2) gives
// for it, unless it has no device.
func TestThisSystem(t *testing.T) {
	var stat unix.Stat_t
	if err := unix.Stat("/", &stat); err != nil {
		t.Fatal(err)
	}
	major, minor := unix.Major(uint64(stat.Dev)), unix.Minor(uint64(stat.Dev))
	if major == 0 {
		t.Skip("the root has no device")
	}
	for _, m := range list(t, "") {
		if m.Major == major && m.Minor == minor {
			if m.Type == "" || m.Source == "" {
				t.Errorf("got %+v", m)
			}
			return
		}
	}
	t.Errorf("%d:%d is not there", major, minor)
}

func BenchmarkList4096(b *testing.B) {
	var text strings.Builder
	for i := range 4096 {
		fmt.Fprintf(&text, "%d 1 254:%d / /var/lib/volumes/%032x/mount\\040point rw,relatime shared:%d - ext4 /dev/mapper/vg-%d rw,stripe=256\n", i+30, i, i, i, i)
	}
	dir := guesttest.Tree(b, map[string]string{"/proc/self/mountinfo": text.String()})
	b.ReportAllocs()
	for b.Loop() {
		if got, err := List(dir); err != nil || len(got) != 4096 {
			b.Fatal(len(got), err)
		}
	}
}
