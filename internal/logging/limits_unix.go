//go:build unix && !linux

package logging

const (
	// pipeBuf is PIPE_BUF of POSIX: so much a pipe takes at once, and without
	// blocking when it is writable.
	pipeBuf = 512

	syslogPath = "/var/run/log"
)
