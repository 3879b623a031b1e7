package channel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// readNow and writeNow read and write once, what there is and what there is room for.
//
// They are system calls of which the runtime is not told. About a descriptor that does
// not block it has nothing to do; but being told, it wakes the thread that watches over
// calls that block, which is more work than a ping and often lets it wait for a
// processor.

func readNow(fd uintptr, b []byte) (int, error) { return now(unix.SYS_READ, fd, b) }

func writeNow(fd uintptr, b []byte) (int, error) { return now(unix.SYS_WRITE, fd, b) }

func now(call, fd uintptr, b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
