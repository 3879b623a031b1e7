package exec

import "golang.org/x/sys/unix"

func withoutPIDFD(c *child) {
	unix.Close(*c.pidfd)
	*c.pidfd = -1
}
