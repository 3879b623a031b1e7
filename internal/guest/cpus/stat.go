package cpus

import (
	"strconv"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/qga"
)

// msPerTick is the length of the tick that the kernel counts in towards user
// space: a hundredth of a second on every processor that Go has a port to,
// whatever ticks inside the kernel.
const msPerTick = 10

// parseStat returns the time accounts in the contents of /proc/stat. A kernel
// appends to the fields of a line what it has learnt to count, so that a line
// is good from the fourth on; at one that is shorter the rest is not to be
// trusted either.
func parseStat(data string) []qga.CPUStats {
	list := []qga.CPUStats{}
	for line := range root.Lines(data) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		id, ok := strings.CutPrefix(fields[0], "cpu")
		cpu, err := strconv.ParseUint(id, 10, 31)
		if !ok || err != nil { // the line "cpu" is the sum of the others
			continue
		}
		var ms []uint64
		for _, field := range fields[1:] {
			ticks, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				break
			}
			ms = append(ms, ticks*msPerTick)
		}
		if len(ms) < 4 {
			break
		}
		s := qga.CPUStats{
			Type: qga.LinuxCPUStats, CPU: int64(cpu),
			User: ms[0], Nice: ms[1], System: ms[2], Idle: ms[3],
		}
		for i, member := range []**uint64{&s.IOWait, &s.IRQ, &s.SoftIRQ, &s.Steal, &s.Guest, &s.GuestNice} {
			if 4+i < len(ms) {
				*member = &ms[4+i]
			}
		}
		list = append(list, s)
	}
	return list
}
