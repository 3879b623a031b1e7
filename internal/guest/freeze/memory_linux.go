package freeze

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

// lockMemory brings the whole program into memory and keeps it there, so that a
// thaw does not begin by reading from a disk, perhaps the very one that does not
// answer. It does what can be done: the rest needs the disk as ever. The result
// ends it.
//
// Not MCL_CURRENT alone: that would fill what the Go runtime has set aside.
func lockMemory() (unlock func()) {
	_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	for _, m := range readOnlyMappings() {
		_, _, _ = unix.Syscall(unix.SYS_MLOCK, m.start, m.length, 0)
	}
	return func() { _ = unix.Munlockall() }
}

// A mapping is a range of addresses.
type mapping struct{ start, length uintptr }

// readOnlyMappings returns where files are mapped that this process cannot
// change: the program's code and constants.
func readOnlyMappings() (list []mapping) {
	maps, _ := root.Dir("").ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		// 00400000-0049c000 r-xp 00000000 08:01 1234  /usr/sbin/qemu-ga
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[5], "/") || !strings.HasPrefix(f[1], "r-") {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && start < end {
			list = append(list, mapping{uintptr(start), uintptr(end - start)})
		}
	}
	return list
}
