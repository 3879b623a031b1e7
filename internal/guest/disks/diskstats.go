package disks

import (
	"strconv"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/qga"
)

// parseDiskStats reads the text of /proc/diskstats. A line is a device's major,
// minor and name, and then counters, whose number tells how old the kernel is.
// Lines that are not so are skipped: which counter is which depends on their number.
func parseDiskStats(text string) []qga.DiskStatsInfo {
	list := []qga.DiskStatsInfo{}
	for line := range root.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		info := qga.DiskStatsInfo{Name: f[2]}
		var errMajor, errMinor error
		info.Major, errMajor = strconv.ParseUint(f[0], 10, 32)
		info.Minor, errMinor = strconv.ParseUint(f[1], 10, 32)
		if errMajor != nil || errMinor != nil {
			continue
		}
		n, ok := counters(f[3:])
		if !ok || len(n) < 4 {
			continue
		}
		info.Stats = diskStats(n)
		list = append(list, info)
	}
	return list
}

// counters returns the numbers that f is.
func counters(f []string) (list []uint64, ok bool) {
	list = make([]uint64, 0, len(f))
	for _, s := range f {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return nil, false
		}
		list = append(list, n)
	}
	return list, true
}

// diskStats names the counters of a line. Kernels of before 2.6.25 have four
// for partitions; 4.18 added those of discards, 5.5 those of flushes.
func diskStats(n []uint64) qga.DiskStats {
	var s qga.DiskStats
	if len(n) == 4 {
		s.ReadIOs, s.ReadSectors, s.WriteIOs, s.WriteSectors = &n[0], &n[1], &n[2], &n[3]
	}
	if len(n) >= 11 {
		s.ReadIOs, s.ReadMerges, s.ReadSectors, s.ReadTicks = &n[0], &n[1], &n[2], &n[3]
		s.WriteIOs, s.WriteMerges, s.WriteSectors, s.WriteTicks = &n[4], &n[5], &n[6], &n[7]
		s.IOsInProgress, s.TotalTicks, s.WeightTicks = &n[8], &n[9], &n[10]
	}
	if len(n) >= 15 {
		s.DiscardIOs, s.DiscardMerges, s.DiscardSectors, s.DiscardTicks = &n[11], &n[12], &n[13], &n[14]
	}
	if len(n) >= 17 {
		s.FlushIOs, s.FlushTicks = &n[15], &n[16]
	}
	return s
}
