package accounts

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// visitLimit is how long we stay in a home directory. It may be on a server
// that is gone.
const visitLimit = 30 * time.Second

// visit calls fn with the user's rights in the file system instead of ours. If
// the visit takes too long it returns, and fn goes on by itself.
func (a *Accounts) visit(ctx context.Context, u user, fn func() error) error {
	groups, err := a.groups(ctx, u)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, visitLimit)
	defer cancel()
	leave, err := a.enter(ctx, u.home)
	if err != nil {
		return fmt.Errorf("the home directory of user '%s': %w", u.name, err)
	}
	done := make(chan error, 1)
	go func() {
		defer leave()
		defer func() {
			// The agent catches panics of its own goroutines only.
			if p := recover(); p != nil {
				done <- fmt.Errorf("internal error: %v", p)
			}
		}()
		done <- u.act(groups, fn)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the home directory of user '%s': %w", u.name, ctx.Err())
	}
}

// act calls fn with the rights in the file system of the user, who is in some groups
// besides his own. It does not return to others what it has taken: the goroutine must
// end with it.
func (u user) act(groups []uint32, fn func() error) error {
	if euid := os.Geteuid(); euid != 0 && euid == int(u.uid) {
		return fn() // an agent that somebody runs for himself
	}
	// To the kernel the rights are the thread's. This one is never unlocked, so
	// the runtime ends it with the goroutine, and makes no thread from it.
	runtime.LockOSThread()
	if err := u.become(groups); err != nil {
		return err
	}
	return fn()
}

// become gives up the thread's rights in the file system for the user's. Unlike
// with the effective user ID, the user gets none over the thread, as to trace
// it.
func (u user) become(groups []uint32) error {
	groups = append([]uint32{u.gid}, groups...)
	// Package unix would do it to all threads.
	if _, _, errno := unix.RawSyscall(sysSetgroups, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return fmt.Errorf("failed to set group for user '%s': %w", u.name, strerror.Reason(errno))
	}
	// These do not say whether they have worked. Asked for what cannot be, they
	// say what is.
	const ask = -1
	_, _ = unix.SetfsgidRetGid(int(u.gid))
	if gid, _ := unix.SetfsgidRetGid(ask); uint32(gid) != u.gid || u.gid == ^uint32(0) {
		return fmt.Errorf("failed to set effective group ID for user '%s'", u.name)
	}
	_, _ = unix.SetfsuidRetUid(int(u.uid))
	if uid, _ := unix.SetfsuidRetUid(ask); uint32(uid) != u.uid || u.uid == ^uint32(0) {
		return fmt.Errorf("failed to set effective user ID for user '%s'", u.name)
	}
	if u.uid == 0 {
		return nil
	}
	return u.dropCapabilities()
}

// dropCapabilities takes from the thread what would lead it where the user cannot go,
// through links in /proc to what is another's.
func (u user) dropCapabilities() error {
	var caps [2]unix.CapUserData
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err := unix.Capget(&head, &caps[0])
	if err == nil {
		// These lead to no files. Without them syscall.Setgroups and the like, which
		// are made on all threads, would end the process: the main thread does not
		// end with its goroutine, it is only not used any more.
		const harmless = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
		caps[0].Effective &= harmless
		caps[1].Effective = 0
		err = unix.Capset(&head, &caps[0])
	}
	if err != nil {
		return fmt.Errorf("failed to drop capabilities for user '%s': %w", u.name, strerror.Reason(err))
	}
	return nil
}
