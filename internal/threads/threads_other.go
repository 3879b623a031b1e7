//go:build !linux

package threads

// CalmMonitor does nothing.
func CalmMonitor() {}

// Restore does nothing.
func Restore() {}
