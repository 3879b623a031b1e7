package freeze

import (
	"slices"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/disks/diskstest"
	"github.com/bellhop-vm/bellhop/internal/guest/mounts"
)

// What is stored on another file system comes before it, however they were
// mounted, and what is stored in a file before all the rest; apart from that it is
// the reverse order of mounting.
func TestInOrder(t *testing.T) {
	const virtual = "/sys/devices/virtual/block/"
	tree := diskstest.New(t)
	tree.Disk("/sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda", "254:0")
	tree.Disk(virtual+"loop0", "7:0")
	tree.File(virtual+"loop0/loop/backing_file", "/data/disk.img\n")
	tree.Disk(virtual+"loop1", "7:1")
	tree.File(virtual+"loop1/loop/backing_file", "/data/pv.img (deleted)\n")
	tree.Disk(virtual+"loop2", "7:2")
	tree.File(virtual+"loop2/loop/backing_file", "/bind/deep/er/x.img\n")
	tree.Disk(virtual+"loop2/loop2p1", "259:0")
	tree.Disk(virtual+"loop3", "7:3")
	tree.File(virtual+"loop3/loop/backing_file", "/elsewhere/y\n")
	tree.Disk(virtual+"dm-0", "253:0")
	tree.Link(virtual+"dm-0/slaves/loop1", virtual+"loop1")
	tree.Disk(virtual+"dm-1", "253:1")
	tree.Link(virtual+"dm-1/slaves/dm-0", virtual+"dm-0")
	tree.Disk(virtual+"loop4", "7:4")
	tree.File(virtual+"loop4/loop/backing_file", "/raid/file\n")
	const btrfs = "/sys/fs/btrfs/0d2c4a0e-5a39-4a3c-9a8e-3c9e8b6f1d11/devices/"
	tree.Link(btrfs+"vda", "/sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda")
	tree.Link(btrfs+"loop4", virtual+"loop4")

	mount := func(major, minor uint32, point string) mounts.Mount {
		return mounts.Mount{Major: major, Minor: minor, Point: point, Type: "ext4"}
	}
	all := []mounts.Mount{
		mount(7, 3, "/hidden"),   // on no mount of the list, so perhaps on any
		mount(7, 0, "/image"),    // on /data
		mount(253, 1, "/volume"), // on /data, through two devices
		mount(259, 0, "/part"),   // on /nested, through its other mount
		mount(7, 9, "/gone"),     // of no device that there is
		mount(253, 9, "/data"),   // which is mounted after those on it
		{Major: 8, Minor: 1, Point: "/nested", Others: []string{"/bind/deep"}, Type: "xfs"},
		{Major: 254, Minor: 0, Point: "/pool", Type: "btrfs"}, // one of its devices is on /raid
		mount(9, 0, "/raid"),
	}
	var got []string
	for _, m := range inOrder(tree.Root, all) {
		got = append(got, m.Point)
	}
	want := []string{"/pool", "/part", "/volume", "/image", "/hidden", "/raid", "/nested", "/data", "/gone"}
	if !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

// Loop devices can be made to hold each other's files. There is no right order
// then, but there has to be one.
func TestInOrderOfCircle(t *testing.T) {
	const virtual = "/sys/devices/virtual/block/"
	tree := diskstest.New(t)
	tree.Disk(virtual+"loop0", "7:0")
	tree.File(virtual+"loop0/loop/backing_file", "/b/file\n")
	tree.Disk(virtual+"loop1", "7:1")
	tree.File(virtual+"loop1/loop/backing_file", "/a/file\n")
	tree.Link(virtual+"loop1/slaves/loop0", virtual+"loop0")
	tree.Link(virtual+"loop0/slaves/loop1", virtual+"loop1")
	got := inOrder(tree.Root, []mounts.Mount{{Major: 7, Point: "/a"}, {Major: 7, Minor: 1, Point: "/b"}})
	if len(got) != 2 || got[0].Point == got[1].Point {
		t.Errorf("got %+v", got)
	}
}
