//go:build linux

package freeze

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// diskNames are the disks' images, in the order of /dev/vda and so on.
var diskNames = []string{"ext4", "xfs", "btrfs", "pv1", "pv2", "ro", "loop", "volume"}

// programs are what makes and checks the disks, here and in the guest.
var programs = []string{"mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "e2fsck", "xfs_repair", "btrfs", vm.LVM("lvm").Path}

const mib = 1 << 20

// An lvm disk begins with a header, and its extents are of 4 MiB.
const (
	lvmHeader = 1 * mib
	lvmExtent = 4 * mib
)

// makeDisks makes the disks' images in a new directory.
func makeDisks(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	make := func(name string, size int64, mkfs ...string) {
		t.Helper()
		makeDisk(t, path(name), size, mkfs...)
	}
	make("ext4", 64*mib, "mkfs.ext4", "-q")
	make("xfs", 320*mib, "mkfs.xfs", "-q") // not smaller
	make("btrfs", 128*mib, "mkfs.btrfs", "-q")
	make("ro", 4*mib, "mkfs.ext4", "-q")
	make("loop", 32*mib, "mkfs.ext4", "-q")

	// A logical volume that lies on two disks. The disk of that name is a spare
	// one in the guest.
	make("volume", 8*lvmExtent, "mkfs.ext4", "-q")
	volume, err := os.Open(path("volume"))
	if err != nil {
		t.Fatal(err)
	}
	defer volume.Close()
	for _, name := range []string{"pv1", "pv2"} {
		make(name, lvmHeader+4*lvmExtent)
		pv, err := os.OpenFile(path(name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.CopyN(io.NewOffsetWriter(pv, lvmHeader), volume, 4*lvmExtent)
		if err := pv.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// makeDisk makes an image of some bytes, and a file system in it by a program.
func makeDisk(t *testing.T, path string, size int64, mkfs ...string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if len(mkfs) > 0 {
		run(t, mkfs[0], append(mkfs[1:], path)...)
	}
}

// tempDir returns a new directory whose path means nothing to QEMU but itself:
// that of t.TempDir may have commas in it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bellhop-disks-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// checkFrozen has the file systems in a copy of frozen disks checked as they
// are. XFS leaves something to its log, and can be checked only after a mount.
func checkFrozen(t *testing.T, disks string) {
	t.Helper()
	run(t, "e2fsck", "-fn", filepath.Join(disks, "ext4"))
	run(t, "btrfs", "check", "--readonly", filepath.Join(disks, "btrfs"))
}

// restore boots another guest from the disks, as one would to restore a backup,
// and mounts them. It returns how many records there are in each file system,
// and has them all checked after that.
func restore(t *testing.T, disks string) map[string]int {
	t.Helper()
	c := config(disks)
	addWriter(t, &c)
	g := &machine{Guest: vm.Start(t, c), disks: disks}
	counts := func() map[string]int {
		g.shell(t, `
			set -e
			cd /data
			mkdir ext4 xfs btrfs lvm loop
			mount -t ext4 /dev/vda ext4
			mount -t xfs /dev/vdb xfs
			mount -t btrfs /dev/vdc btrfs
			losetup /dev/loop0 xfs/image
			mount -t ext4 /dev/loop0 loop
			lvm vgchange -q -ay group
			mount -t ext4 /dev/group/volume lvm`)
		if after := g.shell(t, "ls /data/*/after 2>/dev/null; true"); after != "" {
			t.Errorf("written while the file systems were frozen: %s", after)
		}
		return g.counts(t)
	}()
	// What lies within others is copied to disks of its own.
	g.shell(t, `
		set -e
		cd /data
		umount lvm
		dd if=/dev/group/volume of=/dev/vdh bs=1M
		umount loop
		dd if=xfs/image of=/dev/vdg bs=1M
		losetup -d /dev/loop0
		umount ext4 btrfs xfs
		sync`)
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ext4", "loop", "volume"} {
		run(t, "e2fsck", "-fn", filepath.Join(disks, name))
	}
	run(t, "xfs_repair", "-n", "-f", filepath.Join(disks, "xfs"))
	run(t, "btrfs", "check", "--readonly", filepath.Join(disks, "btrfs"))
	return counts
}

// powerFails ends the machine at once, and verifies that all records are there
// which were promised to be.
func (m *machine) powerFails(t *testing.T) {
	t.Helper()
	acked := m.acked(t)
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, n := range restore(t, m.disks) {
		if n < acked[name] {
			t.Errorf("%s: after a power failure there are %d records, %d were acknowledged", name, n, acked[name])
		}
	}
}

// run runs a program on the host that is to succeed.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd, err, out)
	}
}
