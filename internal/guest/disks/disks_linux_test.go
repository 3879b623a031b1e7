package disks

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/bellhop-vm/bellhop/internal/guest/disks/diskstest"
	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/qga"
)

// over returns the commands on a tree whose NVMe disks have the health of those
// in QEMU.
func over(tree diskstest.Tree) *commands {
	return &commands{root: tree.Root, readHealthLog: func(string) (*healthLog, error) { return new(healthLog), nil }}
}

// byName makes disks comparable as sets.
func byName(t *testing.T, list []qga.Disk) map[string]string {
	t.Helper()
	m := make(map[string]string)
	for _, d := range list {
		slices.Sort(d.Dependencies)
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if m[d.Name] != "" {
			t.Errorf("%s is there twice", d.Name)
		}
		m[d.Name] = fmt.Sprintf("%v %s", d.Dependencies == nil, text)
	}
	return m
}

func compare(t *testing.T, got, want []qga.Disk) {
	t.Helper()
	g, w := byName(t, got), byName(t, want)
	for name := range w {
		if g[name] != w[name] {
			t.Errorf("%s:\n got %s\nwant %s", name, g[name], w[name])
		}
	}
	for name := range g {
		if w[name] == "" {
			t.Errorf("%s is too many", name)
		}
	}
}

func TestGetDisksOfGuest(t *testing.T) {
	for name, mapped := range map[string]bool{"get-disks-plain": false, "get-disks": true} {
		t.Run(name, func(t *testing.T) {
			var want []qga.Disk
			diskstest.Golden(t, name, &want)
			i := slices.IndexFunc(want, func(d qga.Disk) bool { return d.Smart != nil })
			if i < 0 {
				t.Fatal("no NVMe disk")
			}
			want[i].Smart = &qga.DiskSmart{Type: qga.BusNVMe}
			got, err := over(diskstest.Guest(t, mapped)).getDisks(t.Context(), qga.Empty{})
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, want)
		})
	}
}

func TestGetDisksCaptured(t *testing.T) {
	for _, name := range []string{"virtio", "lvm-on-luks", "md-on-nvme", "no-udev", "s390x"} {
		t.Run(name, func(t *testing.T) {
			guest := guesttest.Captured(t, name)
			var want []qga.Disk
			guest.Answer("guest-get-disks", &want)
			for i := range want {
				if want[i].Smart != nil {
					want[i].Smart = &qga.DiskSmart{Type: qga.BusNVMe}
				}
				// The C agent asks nobody but udev.
				if serial, ok := noUdevSerials[want[i].Name]; ok && name == "no-udev" {
					want[i].Address.Serial = &serial
				}
			}
			tree := diskstest.Tree{TB: t, Root: guest.Root}
			got, err := over(tree).getDisks(t.Context(), qga.Empty{})
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, want)

			if name == "no-udev" || name == "s390x" {
				return
			}
			tree.Remove("/run/udev")
			if got, err = over(tree).getDisks(t.Context(), qga.Empty{}); err != nil {
				t.Fatal(err)
			}
			compare(t, got, want)
		})
	}
}

// noUdevSerials are what udev would have made of the attributes of these disks.
var noUdevSerials = map[string]string{
	"/dev/vda":     "XXXXXXXXX2",
	"/dev/nvme0n1": "QEMU_NVMe_Ctrl_XXXXXXXXX1_1",
}

// Without udev its part is left to the kernel's attributes, and the result is
// the same.
func TestGetDisksWithoutUdev(t *testing.T) {
	var want []qga.Disk
	diskstest.Golden(t, "get-disks", &want)
	tree := diskstest.Guest(t, true)
	tree.Remove("/run/udev")
	const d = "/sys/devices/pci0000:00/"
	for disk, attributes := range map[string]map[string]string{
		"vda": {"serial": "ROOTDISK"},
		"vdb": {"serial": "VBLK1"},
		"vdc": {"serial": "BRIDGED"},
		"sda": {"device/vendor": "ATA     \n", "device/model": "QEMU HARDDISK   \n", "device/vpd_pg83": ataPage("QEMU HARDDISK", "IDE1")},
		"sdc": {"device/vendor": "ATA     \n", "device/model": "QEMU HARDDISK   \n", "device/vpd_pg83": ataPage("QEMU HARDDISK", "AHCI2")},
		"sr0": {"device/vendor": "QEMU    \n", "device/model": "QEMU DVD-ROM    \n"},
		"sdb": {"device/vendor": "QEMU    \n", "device/model": "QEMU HARDDISK   \n", "device/vpd_pg83": page83(designator(2, 0, "LSI4"))},
		"sdd": {"device/vendor": "QEMU    \n", "device/model": "QEMU HARDDISK   \n", "device/vpd_pg83": page83(designator(2, 0, "VSCSI35"))},
		"sde": {"device/vendor": "QEMU    \n", "device/model": "QEMU HARDDISK   \n"},
		"sdf": {"device/vendor": "QEMU    \n", "device/model": "QEMU HARDDISK   \n"},
		"nvme0n1": {
			"device/model":  "QEMU NVMe Ctrl                          \n",
			"device/serial": "NVME1               \n", "nsid": "1\n",
		},
		"dm-0": {"dm/name": "vgt-lin--ear\n"},
		"dm-1": {"dm/name": "cr\n"},
	} {
		device, ok := NewTree(tree.Root).Follow("/sys/block/" + disk)
		if !ok {
			t.Fatal(disk)
		}
		for name, text := range attributes {
			tree.File(device+"/"+name, text)
		}
	}
	tree.File(d+"0000:00:17.0/usb1/1-1/serial", "USBE1\n")
	tree.File(d+"0000:00:16.0/usb3/3-1/serial", "USBX1\n")
	for i := range want {
		want[i].Smart = nil
		if want[i].Name == "/dev/sr0" {
			want[i].Address.Serial = nil // the kernel has no attribute for it
		}
	}
	c := over(tree)
	c.readHealthLog = func(string) (*healthLog, error) { return nil, errors.New("not permitted") }
	got, err := c.getDisks(t.Context(), qga.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, want)

	// A partition has the serial of its disk.
	tr := NewTree(tree.Root)
	device, _ := tr.Path(254, 17)
	a := tr.Addresses(device)
	if len(a) != 1 || a[0].Serial == nil || *a[0].Serial != "VBLK1" || a[0].Dev == nil || *a[0].Dev != "/dev/vdb1" {
		t.Errorf("vdb1: got %+v", a)
	}
}

func TestGetDisksOddities(t *testing.T) {
	tree := diskstest.New(t)
	const virtual = "/sys/devices/virtual/block/"
	tree.Disk(virtual+"loop0", "7:0")
	tree.File(virtual+"loop0/size", "0\n")
	tree.Disk(virtual+"loop1", "7:1")
	tree.File(virtual+"loop1/size", "\xff\x00garbage") // who knows
	tree.Disk(virtual+"loop2", "7:2")
	tree.File(virtual+"loop2/size", "")
	tree.File("/sys/block/README", "no link")
	tree.Link("/sys/block/gone", "/sys/devices/gone")

	const ctl = "/sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0"
	tree.Driver("/sys/devices/pci0000:00/0000:00:04.0", "nvme")
	tree.Disk(ctl+"/nvme0c0n1", "259:9")
	tree.File(ctl+"/nvme0c0n1/uevent", "DEVTYPE=disk\n")

	tree.Disk("/sys/devices/pci0000:00/0000:00:05.0/host0/target0:0:0/0:0:0:0/block/cciss!c0d0", "104:0")
	tree.Unreadable("/sys/devices/pci0000:00/0000:00:05.0/host0/target0:0:0/0:0:0:0/block/cciss!c0d0/uevent")
	tree.Disk("/sys/devices/platform/x/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0", "179:0")
	tree.Partition("/sys/devices/platform/x/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0/mmcblk0p1", "179:1")
	tree.Dir("/sys/devices/platform/x/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0/mmcblk0p")
	tree.Dir("/sys/devices/platform/x/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0/mmcblk0px1")
	tree.File("/sys/devices/platform/x/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0/device/serial", "0xdeadbeef\n")

	got, err := over(tree).getDisks(t.Context(), qga.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	none := qga.PCIAddress{Domain: -1, Bus: -1, Slot: -1, Function: -1}
	compare(t, got, []qga.Disk{
		{Name: "/dev/loop1", Dependencies: []string{}},
		{Name: "/dev/cciss/c0d0", Dependencies: []string{}},
		{
			Name: "/dev/mmcblk0", Dependencies: []string{},
			Address: &qga.DiskAddress{PCIController: none, BusType: qga.BusUnknown, Serial: new("0xdeadbeef"), Dev: new("/dev/mmcblk0")},
		},
		{Name: "/dev/mmcblk0p1", Partition: true, Dependencies: []string{"/dev/mmcblk0"}},
	})
}

func TestErrors(t *testing.T) {
	tree := diskstest.New(t)
	tree.Remove("/sys")
	_, err := over(tree).getDisks(t.Context(), qga.Empty{})
	if want := `Can't open directory "/sys/block": No such file or directory`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = over(tree).getDiskStats(t.Context(), qga.Empty{})
	if want := "Could not open '/proc/diskstats': No such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestGetDiskStatsCaptured makes the lines of the kernel of the answer again, and
// looks the numbers of the devices up in the same guest.
func TestGetDiskStatsCaptured(t *testing.T) {
	for _, name := range []string{"virtio", "lvm-on-luks", "md-on-nvme", "no-udev"} {
		t.Run(name, func(t *testing.T) {
			dir := guesttest.Captured(t, name).Root
			text, err := dir.ReadFile("/proc/diskstats")
			if err != nil {
				t.Fatal(err)
			}
			list, err := (&commands{root: dir}).getDiskStats(t.Context(), qga.Empty{})
			if err != nil {
				t.Fatal(err)
			}
			var lines, names []string
			for _, d := range list {
				names = append(names, d.Name)
				if number, err := dir.ReadLine("/sys/class/block/" + d.Name + "/dev"); err != nil || number != fmt.Sprintf("%d:%d", d.Major, d.Minor) {
					t.Errorf("%s is %d:%d, and in /sys %q, %v", d.Name, d.Major, d.Minor, number, err)
				}
				line := []string{fmt.Sprint(d.Major), fmt.Sprint(d.Minor), d.Name}
				s := d.Stats
				for i, counter := range []*uint64{
					s.ReadIOs, s.ReadMerges, s.ReadSectors, s.ReadTicks,
					s.WriteIOs, s.WriteMerges, s.WriteSectors, s.WriteTicks,
					s.IOsInProgress, s.TotalTicks, s.WeightTicks,
					s.DiscardIOs, s.DiscardMerges, s.DiscardSectors, s.DiscardTicks,
					s.FlushIOs, s.FlushTicks,
				} {
					if counter == nil {
						t.Fatalf("%s: counter %d is missing", d.Name, i)
					}
					line = append(line, fmt.Sprint(*counter))
				}
				lines = append(lines, strings.Join(line, " "))
			}
			var want []string
			for line := range strings.Lines(string(text)) {
				want = append(want, strings.Join(strings.Fields(line), " "))
			}
			if !slices.Equal(lines, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
			}
			devices, err := dir.ReadDir("/sys/class/block")
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(names)
			slices.Sort(devices)
			if !slices.Equal(names, devices) {
				t.Errorf("got %q, want %q", names, devices)
			}
		})
	}
}

// TestGarbage spoils each file and link of a good tree in turn.
func TestGarbage(t *testing.T) {
	tree := diskstest.Guest(t, true)
	c := over(tree)
	good, err := c.getDisks(t.Context(), qga.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tree.Files() {
		restore := tree.Spoil(name, "\xff\xfe\x00E:ID_SERIAL\nE:=\nMAJOR=\nDEVNAME=../../x\n"+strings.Repeat("9", 100))
		got, err := c.getDisks(t.Context(), qga.Empty{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(got) < len(good)-3 {
			t.Errorf("%s hides %d disks", name, len(good)-len(got))
		}
		restore()
	}
	if got, _ := c.getDisks(t.Context(), qga.Empty{}); !reflect.DeepEqual(got, good) {
		t.Error("the tree was not restored")
	}
}

// The kernel takes the size of the command from the number of the ioctl.
func TestNVMeCommandSize(t *testing.T) {
	if got, want := unsafe.Sizeof(nvmeCommand{}), uintptr(nvmeAdminCommand>>16&0x3fff); got != want {
		t.Errorf("got %d bytes, want %d", got, want)
	}
	if log, err := readHealthLog("/dev/null"); err == nil {
		t.Errorf("/dev/null has a health: %v", log)
	}
}

// A disk that does not answer costs its time limit once.
func TestDeadNVMe(t *testing.T) { synctest.Test(t, testDeadNVMe) }

func testDeadNVMe(t *testing.T) {
	c := over(diskstest.Guest(t, false))
	release := make(chan struct{})
	defer close(release)
	c.readHealthLog = func(string) (*healthLog, error) {
		<-release
		return new(healthLog), nil
	}
	for _, want := range []time.Duration{patience, 0} {
		start := time.Now()
		list, err := c.getDisks(t.Context(), qga.Empty{})
		if err != nil || len(list) != 16 {
			t.Errorf("got %d disks, %v", len(list), err)
		}
		if took := time.Since(start); took != want {
			t.Errorf("took %v, want %v", took, want)
		}
		for _, d := range list {
			if d.Smart != nil {
				t.Errorf("%s tells of its health", d.Name)
			}
		}
	}
}

// Many that do not answer share what one may cost.
func TestDeadDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := NewTree("")
		start := time.Now()
		for range 10 {
			limit, done := tree.wait(time.Second)
			time.Sleep(limit)
			done()
		}
		if took, want := time.Since(start), patience+8*grace; took != want {
			t.Errorf("ten dead disks took %v, want %v", took, want)
		}
	})
}

// manyDisks is n disks on virtio, each with a partition, and logical volumes over
// 16 of them each.
func manyDisks(t testing.TB, n int) diskstest.Tree {
	t.Helper()
	tree := diskstest.New(t)
	var partitions []string
	for i := range n {
		pci := fmt.Sprintf("/sys/devices/pci%04x:00/%04x:00:%02x.0", i/32, i/32, i%32)
		disk := fmt.Sprintf("%s/virtio%d/block/vd%d", pci, i, i)
		tree.Driver(pci, "virtio-pci")
		tree.Disk(disk, fmt.Sprintf("254:%d", i*16))
		tree.Udev(fmt.Sprintf("254:%d", i*16), fmt.Sprintf("ID_SERIAL=disk%d", i))
		tree.Partition(disk+"/"+fmt.Sprintf("vd%dp1", i), fmt.Sprintf("254:%d", i*16+1))
		partitions = append(partitions, disk)
	}
	for i := range n / 16 {
		tree.Disk(fmt.Sprintf("/sys/devices/virtual/block/dm-%d", i), fmt.Sprintf("252:%d", i), partitions[i*16:][:16]...)
	}
	return tree
}

func TestManyDisks(t *testing.T) {
	// For a disk, its partition and a sixteenth of a logical volume.
	guesttest.Proportional(t, 1024, 32<<10, func(t *testing.T, n int) func() {
		c := over(manyDisks(t, n))
		return func() {
			list, err := c.getDisks(t.Context(), qga.Empty{})
			if err != nil || len(list) != 2*n+n/16 {
				t.Error(len(list), err)
			}
		}
	})
}

func BenchmarkGetDisks1024(b *testing.B) {
	c := over(manyDisks(b, 1024))
	b.ReportAllocs()
	for b.Loop() {
		list, err := c.getDisks(b.Context(), qga.Empty{})
		if err != nil || len(list) != 2*1024+64 {
			b.Fatal(len(list), err)
		}
	}
}
