package disks

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/disks/diskstest"
	"github.com/bellhop-vm/bellhop/qga"
)

// designator makes a designator of page 0x83: code set and type, and for those
// types that are binary hexadecimal.
func designator(code, kind byte, id string) string {
	return string([]byte{code, kind, 0, byte(len(id))}) + id
}

func page83(designators ...string) string {
	list := strings.Join(designators, "")
	return "\x00\x83" + string(binary.BigEndian.AppendUint16(nil, uint16(len(list)))) + list
}

// ataPage is what libata answers for a disk, see SAT: its serial number, and
// vendor, model and serial number.
func ataPage(model, serial string) string {
	return page83(designator(2, 0, fmt.Sprintf("%-20s", serial)), designator(2, 1, fmt.Sprintf("%-8s%-40s%-20s", "ATA", model, serial)))
}

// describe is an address in the order bus-type bus/target/unit pci.
func describe(list []qga.DiskAddress) string {
	var all []string
	for _, a := range list {
		p := a.PCIController
		s := fmt.Sprintf("%s %d/%d/%d", a.BusType, a.Bus, a.Target, a.Unit)
		if p.Domain >= 0 {
			s += fmt.Sprintf(" %d:%d:%d.%d", p.Domain, p.Bus, p.Slot, p.Function)
		} else if p != (qga.PCIAddress{Domain: -1, Bus: -1, Slot: -1, Function: -1}) {
			s += " half a PCI address"
		}
		if c := a.CCWAddress; c != nil {
			s += fmt.Sprintf(" ccw %d.%d.%d %d", c.CSSID, c.SSID, c.SubchNo, c.DeviceNo)
		}
		if a.Dev != nil {
			s += " " + *a.Dev
		}
		if a.Serial != nil {
			s += " " + *a.Serial
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func TestAddresses(t *testing.T) {
	const (
		d       = "/sys/devices/pci0000:00/"
		virtual = "/sys/devices/virtual/block/"
	)
	for _, test := range []struct {
		name  string
		build func(diskstest.Tree)
		// asked is the device, and want its addresses.
		asked, want string
	}{
		{"ninth port of AHCI", func(t diskstest.Tree) {
			t.Driver(d+"0000:00:04.0", "ahci")
			for i := range 12 {
				t.Dir(fmt.Sprintf("%s0000:00:04.0/ata%d", d, i+1))
			}
			t.Disk(d+"0000:00:04.0/ata10/host9/target9:0:0/9:0:0:0/block/sda", "8:0")
		}, d + "0000:00:04.0/ata10/host9/target9:0:0/9:0:0:0/block/sda", "sata 0/0/9 0:0:4.0 /dev/sda"},
		{"AHCI of a kernel without ata directories", func(t diskstest.Tree) {
			t.Driver(d+"0000:00:1f.2", "ahci")
			t.Dir(d + "0000:00:1f.2/host2")
			t.Disk(d+"0000:00:1f.2/host3/target3:0:0/3:0:0:0/block/sda", "8:0")
		}, d + "0000:00:1f.2/host3/target3:0:0/3:0:0:0/block/sda", "sata 0/0/1 0:0:31.2 /dev/sda"},
		{"UHCI", func(t diskstest.Tree) {
			t.Driver(d+"0000:00:01.2", "uhci_hcd")
			t.Disk(d+"0000:00:01.2/usb1/1-1/1-1:1.0/host5/target5:0:0/5:0:0:0/block/sdd", "8:48")
		}, d + "0000:00:01.2/usb1/1-1/1-1:1.0/host5/target5:0:0/5:0:0:0/block/sdd", "usb 0/0/0 0:0:1.2 /dev/sdd"},
		{"unknown controller", func(t diskstest.Tree) {
			t.Driver(d+"0000:00:03.0", "mptsas")
			t.Disk(d+"0000:00:03.0/host2/port-2:0/end_device-2:0/target2:0:1/2:0:1:0/block/sda", "8:0")
		}, d + "0000:00:03.0/host2/port-2:0/end_device-2:0/target2:0:1/2:0:1:0/block/sda", "unknown 0/0/0 /dev/sda"},
		{"controller without a driver", func(t diskstest.Tree) {
			t.Disk(d+"0000:00:03.0/block/sda", "8:0")
		}, d + "0000:00:03.0/block/sda", "unknown 0/0/0 /dev/sda"},
		{"PCI bus from a device tree", func(t diskstest.Tree) {
			const pci = "/sys/devices/platform/4010000000.pcie/pci0000:00/0000:00:02.0"
			t.Driver(pci, "virtio-pci")
			t.Disk(pci+"/virtio1/block/vda", "254:0")
		}, "/sys/devices/platform/4010000000.pcie/pci0000:00/0000:00:02.0/virtio1/block/vda", "virtio 0/0/0 0:0:2.0 /dev/vda"},
		{"PCI bus of its own behind a controller", func(t diskstest.Tree) {
			const ctl = d + "0000:00:0e.0/pci10000:e0/10000:e0:06.0"
			t.Driver(d+"0000:00:0e.0", "vmd")
			t.Driver(ctl, "nvme")
			t.Disk(ctl+"/nvme/nvme0/nvme0n1", "259:0")
		}, d + "0000:00:0e.0/pci10000:e0/10000:e0:06.0/nvme/nvme0/nvme0n1", "nvme 0/0/0 65536:224:6.0 /dev/nvme0n1"},
		{"virtio-mmio", func(t diskstest.Tree) {
			t.Disk("/sys/devices/platform/a003e00.virtio_mmio/virtio0/block/vda", "254:0")
		}, "/sys/devices/platform/a003e00.virtio_mmio/virtio0/block/vda", "virtio 0/0/0 /dev/vda"},
		{"SCSI over virtio-mmio", func(t diskstest.Tree) {
			t.Disk("/sys/devices/virtio-mmio-cmdline/virtio-mmio.1/virtio1/host3/target3:1:2/3:1:2:7/block/sdb", "8:16")
		}, "/sys/devices/virtio-mmio-cmdline/virtio-mmio.1/virtio1/host3/target3:1:2/3:1:2:7/block/sdb", "scsi 1/2/7 /dev/sdb"},
		{"NVMe on PCI of IBM Z", func(t diskstest.Tree) {
			t.Driver("/sys/devices/pci0002:00/0002:00:00.0", "nvme")
			t.Disk("/sys/devices/pci0002:00/0002:00:00.0/nvme/nvme0/nvme0n1", "259:0")
		}, "/sys/devices/pci0002:00/0002:00:00.0/nvme/nvme0/nvme0n1", "nvme 0/0/0 2:0:0.0 /dev/nvme0n1"},
		{"NVMe with several paths", func(t diskstest.Tree) {
			t.Driver(d+"0000:00:05.0", "nvme")
			t.Disk("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "259:1")
			t.File(d+"0000:00:05.0/nvme/nvme0/nvme0c0n1/uevent", "DEVTYPE=disk\n")
			t.Link("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0", d+"0000:00:05.0/nvme/nvme0")
		}, "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "nvme 0/0/0 0:0:5.0 /dev/nvme0n1"},
		{"thin volume on LUKS on SCSI", func(t diskstest.Tree) {
			const disk = d + "0000:00:04.0/virtio1/host0/target0:0:0/0:0:0:2/block/sda"
			t.Driver(d+"0000:00:04.0", "virtio-pci")
			t.Disk(disk, "8:0")
			t.Partition(disk+"/sda3", "8:3")
			t.Disk(virtual+"dm-0", "252:0", disk+"/sda3")
			t.Disk(virtual+"dm-1", "252:1", virtual+"dm-0") // metadata
			t.Disk(virtual+"dm-2", "252:2", virtual+"dm-0") // data
			t.Disk(virtual+"dm-3", "252:3", virtual+"dm-1", virtual+"dm-2")
			t.Disk(virtual+"dm-4", "252:4", virtual+"dm-3")
		}, virtual + "dm-4", "scsi 0/0/2 0:0:4.0 /dev/sda3"},
		{"device on itself", func(t diskstest.Tree) {
			t.Driver(d+"0000:00:04.0", "virtio-pci")
			t.Disk(d+"0000:00:04.0/virtio1/block/vda", "254:0")
			t.Disk(virtual+"dm-0", "252:0", virtual+"dm-1", d+"0000:00:04.0/virtio1/block/vda")
			t.Disk(virtual+"dm-1", "252:1", virtual+"dm-0", virtual+"dm-1")
		}, virtual + "dm-1", "virtio 0/0/0 0:0:4.0 /dev/vda"},
		{"loop device", func(t diskstest.Tree) {
			t.Disk(virtual+"loop0", "7:0")
		}, virtual + "loop0", ""},
		{"slave that is gone", func(t diskstest.Tree) {
			t.Disk(virtual+"dm-0", "252:0", d+"0000:00:04.0/virtio1/block/vda")
		}, virtual + "dm-0", ""},
	} {
		tree := diskstest.New(t)
		test.build(tree)
		if got := describe(NewTree(tree.Root).Addresses(test.asked)); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestParsePCI(t *testing.T) {
	for _, p := range []string{"", "0000", "0000:00", "0000:00:1f", "0000:00:1f.", "0000:00:xy.0", ":::.", "0000:00:1f.2.3", "virtio0", "-1:0:0.0", "123456789:00:00.0"} {
		if a, ok := parsePCI(p); ok || a != (qga.PCIAddress{}) {
			t.Errorf("%q: got %v", p, a)
		}
	}
	if a, ok := parsePCI("00ff:01:1f.7"); !ok || a != (qga.PCIAddress{Domain: 255, Bus: 1, Slot: 31, Function: 7}) {
		t.Errorf("got %v, %v", a, ok)
	}
}

func TestSerialOfPages(t *testing.T) {
	naaID := "\x60\x01\x40\x5a\xbc\xde\xf0\x12\x34\x56\x78\x9a\xbc\xde\xf0\x12"
	for _, test := range []struct{ page, want string }{
		{page83(designator(2, 0, "drive-0"), designator(1, 3, naaID)), "36001405abcdef0123456789abcdef012"},
		{page83(designator(1, 3, naaID), designator(2, 0, "drive-0"), designator(2, 1, "LIO-ORG x")), "36001405abcdef0123456789abcdef012"},
		{page83(designator(2, 1, "LIO-ORG  disk 1  ")), "1LIO-ORG_disk_1"},
		{page83(designator(1, 2, "\x00\x11\x22\x33\x44\x55\x66\x77")), "20011223344556677"},
		{page83(designator(2, 0, " a b/c ")), "0VEN_MO_DEL_a_b_c"},
		{page83(designator(1, 0x13, naaID)), ""}, // of a port
		{page83(designator(1, 3, "")), ""},
		{page83(designator(1, 3, naaID))[:15], ""},
		{page83("\x01\x03\x00\xff" + naaID), ""},
		{page83(designator(1, 8, naaID)), ""},
		{"\x00\x80\x00\x05 ab c", "SVEN_MO_DEL_ab_c"},
		{"\x00\x80\x00\x00", ""},
		{"\x00\x80", ""},
		{"", ""},
	} {
		got := serialOfPage83([]byte(test.page), "VEN", "MO DEL")
		if got == "" {
			got = serialOfPage80([]byte(test.page), "VEN", "MO DEL")
		}
		if got != test.want {
			t.Errorf("%q: got %s, want %s", test.page, got, test.want)
		}
	}
}

func FuzzSerialOfPage83(f *testing.F) {
	f.Add([]byte(ataPage("QEMU HARDDISK", "x")), "ATA", "m")
	f.Add([]byte(page83(designator(1, 3, "\x60\x01"), designator(2, 0, "z"))), "v", "m")
	f.Fuzz(func(t *testing.T, page []byte, vendor, model string) {
		s := serialOfPage83(page, vendor, model)
		if strings.ContainsAny(s, " \n\x00") || len(s) > 2*len(page)+len(vendor)+len(model)+8 {
			t.Errorf("got %q", s)
		}
	})
}

func FuzzUdev(f *testing.F) {
	f.Add("MAJOR=8\nMINOR=0\nDEVNAME=sda\nDEVTYPE=disk\nE:ID_SERIAL=x\nE:DM_NAME=y\n")
	f.Fuzz(func(t *testing.T, text string) {
		u, p := parseUevent(text), parseProperties(text)
		if u.node != "" && !strings.HasPrefix(u.node, "/dev/") {
			t.Errorf("node %q", u.node)
		}
		if strings.Contains(u.number+u.node+p.serial+p.alias, "\n") {
			t.Errorf("more than a line: %+v, %+v", u, p)
		}
	})
}

// TestCutOff has the last line of each file without its end: what it says is not known.
func TestCutOff(t *testing.T) {
	const text = "MAJOR=254\nMINOR=16\nDEVNAME=vdb1\nDEVTYPE=partition"
	if u := parseUevent(text); u.number != "254:16" || u.node != "/dev/vdb1" || u.partition {
		t.Errorf("got %+v", u)
	}
	if u := parseUevent(text[:len("MAJOR=254\nMINOR=16\nDEVNAME=vdb")]); u.number != "254:16" || u.node != "" {
		t.Errorf("of a node: got %+v", u)
	}
	if u := parseUevent(text[:len("MAJOR=254\nMINOR=1")]); u.number != "" {
		t.Errorf("of a number: got %+v", u)
	}
	if p := parseProperties("E:DM_NAME=a\nE:ID_SERIAL=VIRT"); p != (properties{alias: "a"}) {
		t.Errorf("of udev: got %+v", p)
	}
}

func TestHealthLog(t *testing.T) {
	// The layout is figure "SMART / Health Information Log Page" of the NVMe
	// base specification: each counter is given its offset in the page.
	var l healthLog
	l[0], l[3], l[4], l[5] = 0x10, 100, 5, 250
	binary.LittleEndian.PutUint16(l[1:], 323)
	for at := 32; at < 192; at += 8 {
		binary.LittleEndian.PutUint64(l[at:], uint64(at))
	}
	got, err := json.Marshal(l.smart())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"nvme","critical-warning":16,"temperature":323,"available-spare":100,"available-spare-threshold":5,"percentage-used":250,` +
		`"data-units-read-lo":32,"data-units-read-hi":40,"data-units-written-lo":48,"data-units-written-hi":56,` +
		`"host-read-commands-lo":64,"host-read-commands-hi":72,"host-write-commands-lo":80,"host-write-commands-hi":88,` +
		`"controller-busy-time-lo":96,"controller-busy-time-hi":104,"power-cycles-lo":112,"power-cycles-hi":120,` +
		`"power-on-hours-lo":128,"power-on-hours-hi":136,"unsafe-shutdowns-lo":144,"unsafe-shutdowns-hi":152,` +
		`"media-errors-lo":160,"media-errors-hi":168,"number-of-error-log-entries-lo":176,"number-of-error-log-entries-hi":184}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseDiskStats(t *testing.T) {
	const text = "   8       0 sda 1 2 3 4\n" +
		" 259 0 nvme0n1 1 2 3 4 5 6 7 8 9 10 11\n" +
		"7 0 loop0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n" +
		"254 16 vda 1 2 3 4 5 6 7 8 18446744073709551615 10 5000000000 12 13 14 15 16 17 18 19\n" +
		"8 1 sda1 1 2 3\n" +
		"8 2 sda2 1 2 3 4 5\n" +
		"8 3 sda3 1 2 x 4\n" +
		"8 4\n\nx y z 1 2 3 4\n8 -1 z 1 2 3 4\n" +
		"8 5 garbage 1 2 3 4 x 6 7 8 9 10 11\n" +
		"8 6 last 1 2 3 4\n" +
		"8 7 cut-off 1 2 3 4"
	got := parseDiskStats(text)
	u := func(n uint64) *uint64 { return &n }
	old := qga.DiskStats{ReadIOs: u(1), ReadSectors: u(2), WriteIOs: u(3), WriteSectors: u(4)}
	eleven := qga.DiskStats{
		ReadIOs: u(1), ReadMerges: u(2), ReadSectors: u(3), ReadTicks: u(4), WriteIOs: u(5), WriteMerges: u(6),
		WriteSectors: u(7), WriteTicks: u(8), IOsInProgress: u(9), TotalTicks: u(10), WeightTicks: u(11),
	}
	discards := eleven
	discards.DiscardIOs, discards.DiscardMerges, discards.DiscardSectors, discards.DiscardTicks = u(12), u(13), u(14), u(15)
	flushes := discards
	flushes.IOsInProgress, flushes.WeightTicks, flushes.FlushIOs, flushes.FlushTicks = u(1<<64-1), u(5000000000), u(16), u(17)
	want := []qga.DiskStatsInfo{
		{Name: "sda", Major: 8, Stats: old},
		{Name: "nvme0n1", Major: 259, Stats: eleven},
		{Name: "loop0", Major: 7, Stats: discards},
		{Name: "vda", Major: 254, Minor: 16, Stats: flushes},
		{Name: "sda2", Major: 8, Minor: 2},
		{Name: "last", Major: 8, Minor: 6, Stats: old},
	}
	if !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		t.Errorf("got %s", g)
	}
	if got := parseDiskStats(""); got == nil || len(got) != 0 {
		t.Errorf("of nothing: got %v, want an empty list", got)
	}
}

func FuzzParseDiskStats(f *testing.F) {
	f.Add("8 0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n8 1 sda1 1 2 3 4\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range parseDiskStats(text) {
			if !strings.Contains(text, d.Name) || d.Name == "" {
				t.Errorf("%q: name %q", text, d.Name)
			}
		}
	})
}
