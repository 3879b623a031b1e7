package buffer

import "golang.org/x/sys/unix"

// mappedSize is from where on memory is a mapping of its own.
const mappedSize = 1 << 20

// Grow returns b with room for at least need more bytes, or false where the
// system has no memory. It takes over b, which has to be nil or from Grow.
func Grow(b []byte, need int) ([]byte, bool) {
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
	// Most of a first transfer would be the work of getting its memory, a small
	// page at a time.
	_ = unix.Madvise(m, unix.MADV_HUGEPAGE)
	return append(m[:0], b...), true
}

// Release gives memory from Grow back; nothing may refer to it any more.
func Release(b []byte) {
	if cap(b) >= mappedSize {
		_ = unix.Munmap(b[:cap(b)])
	}
}
