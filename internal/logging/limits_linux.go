package logging

const (
	// pipeBuf is PIPE_BUF of POSIX: so much a pipe takes at once, and without
	// blocking when it is writable.
	pipeBuf = 4096

	syslogPath = "/dev/log"
)
