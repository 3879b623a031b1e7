package resident

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Trim unmaps the pages of the program's file. Those that are needed come back
// from the page cache as they are touched; of the others, which only the start or
// a command now and then needs, there is no more to be seen than of a program that
// does not run. The kernel would do the same, but only when memory is short.
func Trim() {
	for _, m := range fileMappings() {
		// What was written to, by a loader that relocated it, is not in the
		// file.
		if m.clean {
			m.call(unix.SYS_MADVISE, unix.MADV_DONTNEED)
		}
	}
}

// Lock brings the whole program into memory and keeps it there, with all that it
// has or gets otherwise. It does what can be done: what is not allowed is read
// from the disk as ever. Unlock ends it.
func Lock() {
	// Not MCL_CURRENT alone: that would fill what the Go runtime has set aside.
	_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	for _, m := range fileMappings() {
		m.call(unix.SYS_MLOCK, 0)
	}
}

// Unlock undoes Lock.
func Unlock() {
	_ = unix.Munlockall()
	Trim()
}

// A mapping is a part of a file in memory that this process does not change.
type mapping struct {
	start, length uintptr
	clean         bool // nor has it ever
}

func (m mapping) call(number, argument uintptr) {
	_, _, _ = unix.Syscall(number, m.start, m.length, argument)
}

// fileMappings returns where files are mapped: the program's code and constants.
func fileMappings() (list []mapping) {
	smaps, _ := os.ReadFile("/proc/self/smaps")
	ours := false
	for line := range strings.Lines(string(smaps)) {
		name, rest, _ := strings.Cut(line, " ")
		switch {
		case !strings.HasSuffix(name, ":"):
			// 00400000-0049c000 r-xp 00000000 08:01 1234  /usr/sbin/qemu-ga
			from, to, _ := strings.Cut(name, "-")
			start, err1 := strconv.ParseUint(from, 16, 64)
			end, err2 := strconv.ParseUint(to, 16, 64)
			ours = err1 == nil && err2 == nil && strings.HasPrefix(rest, "r-") && strings.Contains(rest, " /")
			if ours {
				list = append(list, mapping{uintptr(start), uintptr(end - start), false})
			}
		case ours && name == "Anonymous:":
			list[len(list)-1].clean = strings.TrimSpace(rest) == "0 kB"
		}
	}
	return list
}
