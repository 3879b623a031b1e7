//go:build !linux

package resident

// Trim does nothing: the system knows best.
func Trim() {}
