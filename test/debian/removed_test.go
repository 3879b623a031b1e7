//go:build linux

package debian

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/qga"
)

// testRemovedDisk takes disks away from under their file systems, and compares what
// the agents tell of what is left.
func testRemovedDisk(t *testing.T, g *guest) {
	for _, tt := range []struct {
		name   string
		device map[string]any
		remove func(t *testing.T, id, disk string)
	}{
		{
			"virtio, by the host",
			map[string]any{"driver": "virtio-blk-pci"},
			func(t *testing.T, id, _ string) { g.qmp(t, "device_del", map[string]any{"id": id}) },
		},
		{
			"SCSI, by the guest",
			map[string]any{"driver": "scsi-hd", "bus": "hba.0"},
			func(t *testing.T, _, disk string) { g.shell(t, "echo 1 >/sys/block/"+disk+"/device/delete") },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			driver := fmt.Sprint(tt.device["driver"])
			id := "removable-" + driver
			image := filepath.Join(g.dir, id+".img")
			if err := os.WriteFile(image, make([]byte, 16<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			g.qmp(t, "blockdev-add", map[string]any{"driver": "file", "node-name": id, "filename": image})
			tt.device["id"], tt.device["drive"], tt.device["serial"] = id, id, driver
			g.qmp(t, "device_add", tt.device)
			link := "/dev/disk/by-id/*" + driver
			g.await(t, "ls "+link+" 2>/dev/null | wc -l", "1\n")
			disk := strings.TrimSpace(g.shell(t, `set -e
				udevadm settle --timeout=300
				disk=$(readlink -f `+link+`)
				mkfs.ext4 -q $disk
				mkdir /mnt/removed
				mount $disk /mnt/removed
				udevadm settle --timeout=300
				basename $disk`))
			t.Cleanup(func() { g.shell(t, "umount /mnt/removed; rmdir /mnt/removed") })
			tell := func() (f qga.Filesystem) {
				for _, name := range []string{"guest-get-fsinfo", "guest-get-disks", "guest-get-diskstats"} {
					g.compare(t, command(name, ""))
				}
				for _, f = range returned[[]qga.Filesystem](t, g.ours.ask(t, command("guest-get-fsinfo", ""))) {
					if f.Mountpoint == "/mnt/removed" {
						return f
					}
				}
				t.Fatal("the file system is not listed")
				return f
			}
			if f := tell(); f.Name != disk || len(f.Disk) != 1 {
				t.Errorf("with its disk the file system is %+v, want one on %s", f, disk)
			}
			number := strings.TrimSpace(g.shell(t, "cat /sys/block/"+disk+"/dev"))

			tt.remove(t, id, disk)
			g.await(t, "ls -d /sys/block/"+disk+" 2>/dev/null | wc -l", "0\n")
			g.shell(t, "udevadm settle --timeout=300")
			if f := tell(); f.Name != number || len(f.Disk) != 0 || f.TotalBytes == nil {
				t.Errorf("without its disk the file system is %+v, want one on %s that has a size", f, number)
			}
		})
	}
}
