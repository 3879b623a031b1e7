package qga

// A DiskBusType is the kind of bus that a disk is attached to.
type DiskBusType string

// The values of DiskBusType. Of those from BusIEEE1394 to BusFileBackedVirtual
// only Windows makes use.
const (
	BusIDE               DiskBusType = "ide"
	BusFDC               DiskBusType = "fdc"
	BusSCSI              DiskBusType = "scsi"
	BusVirtio            DiskBusType = "virtio"
	BusXen               DiskBusType = "xen"
	BusUSB               DiskBusType = "usb"
	BusUML               DiskBusType = "uml"
	BusSATA              DiskBusType = "sata"
	BusSD                DiskBusType = "sd"
	BusUnknown           DiskBusType = "unknown"
	BusIEEE1394          DiskBusType = "ieee1394"
	BusSSA               DiskBusType = "ssa"
	BusFibre             DiskBusType = "fibre"
	BusRAID              DiskBusType = "raid"
	BusISCSI             DiskBusType = "iscsi"
	BusSAS               DiskBusType = "sas"
	BusMMC               DiskBusType = "mmc"
	BusVirtual           DiskBusType = "virtual"
	BusFileBackedVirtual DiskBusType = "file-backed-virtual"
	BusNVMe              DiskBusType = "nvme"
)

// EnumValues implements Enum.
func (DiskBusType) EnumValues() []string {
	return enumValues(BusIDE, BusFDC, BusSCSI, BusVirtio, BusXen, BusUSB, BusUML, BusSATA, BusSD,
		BusUnknown, BusIEEE1394, BusSSA, BusFibre, BusRAID, BusISCSI, BusSAS, BusMMC,
		BusVirtual, BusFileBackedVirtual, BusNVMe)
}

// A PCIAddress is the address of a PCI function. All members are -1 when there
// is none or it is not known.
type PCIAddress struct {
	Domain   int64 `json:"domain"`
	Bus      int64 `json:"bus"`
	Slot     int64 `json:"slot"`
	Function int64 `json:"function"`
}

// A CCWAddress is the address of a device behind the channel subsystem of an
// IBM Z machine.
type CCWAddress struct {
	CSSID    int64 `json:"cssid"`
	SSID     int64 `json:"ssid"`
	SubchNo  int64 `json:"subchno"`
	DeviceNo int64 `json:"devno"`
}

// A DiskAddress is where in the machine a disk is, such that the host can match
// it with the disk of its configuration.
type DiskAddress struct {
	PCIController PCIAddress  `json:"pci-controller"`
	BusType       DiskBusType `json:"bus-type"`
	// Bus, Target and Unit are numbers behind the controller, 0 where they have
	// no use: of SCSI the unit is the LUN, on LSI controllers the target; of
	// SATA the unit is the port; of IDE the bus is the channel and the unit is
	// 0 for the master and 1 for the slave.
	Bus    int64 `json:"bus"`
	Target int64 `json:"target"`
	Unit   int64 `json:"unit"`
	// Serial is absent when the disk has no serial number.
	Serial *string `json:"serial,omitempty" since:"3.1"`
	// Dev is the device node, or the partition's, such as /dev/vda1; on Windows
	// the device path. Absent when not known.
	Dev *string `json:"dev,omitempty" since:"3.1"`
	// CCWAddress is absent but on IBM Z machines.
	CCWAddress *CCWAddress `json:"ccw-address,omitempty" since:"6.0"`
}

// DiskSmart is what an NVMe controller reports of its health. Counters of 128
// bits are split into a low and a high half.
type DiskSmart struct {
	// Type decides on the members that follow; these are those of BusNVMe.
	Type DiskBusType `json:"type"`
	// CriticalWarning is a set of bits, 0 if all is well.
	CriticalWarning int64 `json:"critical-warning"`
	// Temperature is in kelvins.
	Temperature int64 `json:"temperature"`
	// AvailableSpare is the spare capacity left, AvailableSpareThreshold that
	// below which the controller warns; both in percent.
	AvailableSpare          int64 `json:"available-spare"`
	AvailableSpareThreshold int64 `json:"available-spare-threshold"`
	// PercentageUsed is how much of its expected life the disk has behind it,
	// in percent; it may exceed 100.
	PercentageUsed int64 `json:"percentage-used"`
	// Data units are 1000 blocks of 512 bytes, rounded up.
	DataUnitsReadLo     uint64 `json:"data-units-read-lo"`
	DataUnitsReadHi     uint64 `json:"data-units-read-hi"`
	DataUnitsWrittenLo  uint64 `json:"data-units-written-lo"`
	DataUnitsWrittenHi  uint64 `json:"data-units-written-hi"`
	HostReadCommandsLo  uint64 `json:"host-read-commands-lo"`
	HostReadCommandsHi  uint64 `json:"host-read-commands-hi"`
	HostWriteCommandsLo uint64 `json:"host-write-commands-lo"`
	HostWriteCommandsHi uint64 `json:"host-write-commands-hi"`
	// Controller busy time is in minutes.
	ControllerBusyTimeLo uint64 `json:"controller-busy-time-lo"`
	ControllerBusyTimeHi uint64 `json:"controller-busy-time-hi"`
	PowerCyclesLo        uint64 `json:"power-cycles-lo"`
	PowerCyclesHi        uint64 `json:"power-cycles-hi"`
	PowerOnHoursLo       uint64 `json:"power-on-hours-lo"`
	PowerOnHoursHi       uint64 `json:"power-on-hours-hi"`
	UnsafeShutdownsLo    uint64 `json:"unsafe-shutdowns-lo"`
	UnsafeShutdownsHi    uint64 `json:"unsafe-shutdowns-hi"`
	// Media errors are data that could not be recovered.
	MediaErrorsLo             uint64 `json:"media-errors-lo"`
	MediaErrorsHi             uint64 `json:"media-errors-hi"`
	NumberOfErrorLogEntriesLo uint64 `json:"number-of-error-log-entries-lo"`
	NumberOfErrorLogEntriesHi uint64 `json:"number-of-error-log-entries-hi"`
}

// A Disk is a block device of the guest, whole or a partition.
type Disk struct {
	// Name is the device node, such as /dev/vda; on Windows the device path.
	Name      string `json:"name"`
	Partition bool   `json:"partition"`
	// Dependencies are the names of the devices this one lies on: a partition's
	// disk, a logical volume's parts. Empty but not nil means on none, nil is
	// absent and means that the question does not arise or is not answered.
	Dependencies []string `json:"dependencies,omitempty"`
	// Address is absent for partitions and for virtual devices such as loop
	// devices and logical volumes.
	Address *DiskAddress `json:"address,omitempty"`
	// Alias is the name the device mapper gave the disk. Absent for others.
	Alias *string `json:"alias,omitempty"`
	// Smart is absent for all but NVMe disks, and when the disk does not tell.
	Smart *DiskSmart `json:"smart,omitempty" since:"7.1"`
}

// GetDisks lists the block devices that have a size, removable and virtual ones
// included; on Windows only physical disks.
var GetDisks = Command[Empty, []Disk]{Info{
	Name: "guest-get-disks", Since: "5.2", Systems: Linux | Windows,
}}

// DiskStats is what the kernel has counted of a block device since it came up.
// Sectors are 512 bytes, ticks milliseconds. Merges are requests that were
// joined with a neighbour. Which members are absent depends on the kernel.
type DiskStats struct {
	ReadSectors    *uint64 `json:"read-sectors,omitempty"`
	ReadIOs        *uint64 `json:"read-ios,omitempty"`
	ReadMerges     *uint64 `json:"read-merges,omitempty"`
	WriteSectors   *uint64 `json:"write-sectors,omitempty"`
	WriteIOs       *uint64 `json:"write-ios,omitempty"`
	WriteMerges    *uint64 `json:"write-merges,omitempty"`
	DiscardSectors *uint64 `json:"discard-sectors,omitempty"`
	DiscardIOs     *uint64 `json:"discard-ios,omitempty"`
	DiscardMerges  *uint64 `json:"discard-merges,omitempty"`
	FlushIOs       *uint64 `json:"flush-ios,omitempty"`
	// The ticks of a kind sum up the times its requests took, so that they may
	// pass faster than time itself.
	ReadTicks    *uint64 `json:"read-ticks,omitempty"`
	WriteTicks   *uint64 `json:"write-ticks,omitempty"`
	DiscardTicks *uint64 `json:"discard-ticks,omitempty"`
	FlushTicks   *uint64 `json:"flush-ticks,omitempty"`
	// IOsInProgress is not a counter but how many requests are under way now.
	IOsInProgress *uint64 `json:"ios-pgr,omitempty"`
	// TotalTicks is how long there was any request under way, WeightTicks the
	// same weighted with their number.
	TotalTicks  *uint64 `json:"total-ticks,omitempty"`
	WeightTicks *uint64 `json:"weight-ticks,omitempty"`
}

// DiskStatsInfo is the statistics of one block device.
type DiskStatsInfo struct {
	// Name is the kernel's name of the device, without /dev.
	Name string `json:"name"`
	// Major and Minor are the device's number.
	Major uint64    `json:"major"`
	Minor uint64    `json:"minor"`
	Stats DiskStats `json:"stats"`
}

// GetDiskStats returns the statistics of all block devices, partitions
// included.
var GetDiskStats = Command[Empty, []DiskStatsInfo]{Info{
	Name: "guest-get-diskstats", Since: "7.1", Systems: Linux,
}}
