//go:build unix && !linux

package channel

import "golang.org/x/sys/unix"

// readNow and writeNow read and write once, what there is and what there is room for.

func readNow(fd uintptr, b []byte) (int, error) { return now(unix.Read, fd, b) }

func writeNow(fd uintptr, b []byte) (int, error) { return now(unix.Write, fd, b) }

func now(call func(int, []byte) (int, error), fd uintptr, b []byte) (int, error) {
	for {
		n, err := call(int(fd), b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
