package disks

import (
	"encoding/binary"

	"github.com/bellhop-vm/bellhop/qga"
)

// A healthLog is the log page of an NVMe controller called SMART / Health
// Information.
type healthLog [512]byte

// smart takes the page apart. Its numbers are little-endian.
func (l *healthLog) smart() qga.DiskSmart {
	half := binary.LittleEndian.Uint64
	s := qga.DiskSmart{
		Type:                    qga.BusNVMe,
		CriticalWarning:         int64(l[0]),
		Temperature:             int64(binary.LittleEndian.Uint16(l[1:])),
		AvailableSpare:          int64(l[3]),
		AvailableSpareThreshold: int64(l[4]),
		PercentageUsed:          int64(l[5]),
	}
	at := 32
	for _, counter := range [][2]*uint64{
		{&s.DataUnitsReadLo, &s.DataUnitsReadHi},
		{&s.DataUnitsWrittenLo, &s.DataUnitsWrittenHi},
		{&s.HostReadCommandsLo, &s.HostReadCommandsHi},
		{&s.HostWriteCommandsLo, &s.HostWriteCommandsHi},
		{&s.ControllerBusyTimeLo, &s.ControllerBusyTimeHi},
		{&s.PowerCyclesLo, &s.PowerCyclesHi},
		{&s.PowerOnHoursLo, &s.PowerOnHoursHi},
		{&s.UnsafeShutdownsLo, &s.UnsafeShutdownsHi},
		{&s.MediaErrorsLo, &s.MediaErrorsHi},
		{&s.NumberOfErrorLogEntriesLo, &s.NumberOfErrorLogEntriesHi},
	} {
		*counter[0], *counter[1] = half(l[at:]), half(l[at+8:])
		at += 16
	}
	return s
}
