//go:build linux && !386 && !arm

package accounts

import "golang.org/x/sys/unix"

const sysSetgroups = unix.SYS_SETGROUPS
