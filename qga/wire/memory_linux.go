package wire

import "golang.org/x/sys/unix"

// mappedSize is from where on a tape lies in a mapping of its own.
const mappedSize = 1 << 20

// grow returns b with room for at least need more bytes, or false where the
// system has no memory.
//
// A large tape is mapped rather than allocated, because the kernel enlarges a
// mapping by moving page tables: a request of 64 MiB is never copied, needs no
// second block of half its size at each doubling, and goes back to the system
// the moment it is released.
func grow(b []byte, need int) ([]byte, bool) {
	size := max(2*cap(b), len(b)+need)
	if size < mappedSize {
		return append(make([]byte, 0, size), b...), true
	}
	if cap(b) >= mappedSize {
		m, err := unix.Mremap(b[:cap(b)], size, unix.MREMAP_MAYMOVE)
		if err != nil {
			return b, false
		}
		return m[:len(b)], true
	}
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return b, false
	}
	return append(m[:0], b...), true
}

// release gives the memory of a large b back to the system; nothing may refer
// to it any more.
func release(b []byte) {
	if cap(b) >= mappedSize {
		_ = unix.Munmap(b[:cap(b)])
	}
}
