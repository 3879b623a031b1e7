//go:build unix && !linux

package exec

func withoutPIDFD(*child) {}
