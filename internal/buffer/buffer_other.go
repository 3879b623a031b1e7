//go:build !linux

package buffer

// Grow returns b with room for at least need more bytes. It takes over b, which
// has to be nil or from Grow.
func Grow(b []byte, need int) ([]byte, bool) {
	return append(make([]byte, 0, max(2*cap(b), len(b)+need)), b...), true
}

// Release leaves memory from Grow to the garbage collector.
func Release([]byte) {}
