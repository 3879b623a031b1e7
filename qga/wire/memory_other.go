//go:build !linux

package wire

// grow returns b with room for at least need more bytes.
func grow(b []byte, need int) ([]byte, bool) {
	return append(make([]byte, 0, max(2*cap(b), len(b)+need)), b...), true
}

// release leaves b to the garbage collector.
func release([]byte) {}
