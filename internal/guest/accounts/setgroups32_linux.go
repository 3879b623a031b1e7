//go:build linux && (386 || arm)

package accounts

import "golang.org/x/sys/unix"

// sysSetgroups is the call for numbers of 32 bits; the one without a 32 in its
// name has 16.
const sysSetgroups = unix.SYS_SETGROUPS32
