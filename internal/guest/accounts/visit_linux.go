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
	ctx, cancel := context.WithTimeout(ctx, visitLimit)
	defer cancel()
	select {
	case a.home <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("the home directory of user '%s': %w", u.name, ctx.Err())
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-a.home }()
		defer func() {
			// The agent catches panics of its own goroutines only.
			if p := recover(); p != nil {
				done <- fmt.Errorf("internal error: %v", p)
			}
		}()
		done <- u.act(fn)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the home directory of user '%s': %w", u.name, ctx.Err())
	}
}

// act calls fn with the user's rights in the file system. It does not return to
// others what it has taken: the goroutine must end with it.
func (u user) act(fn func() error) error {
	if euid := os.Geteuid(); euid != 0 && euid == int(u.uid) {
		return fn() // an agent that somebody runs for himself
	}
	// To the kernel the rights are the thread's. This one is never unlocked, so
	// the runtime ends it with the goroutine, and makes no thread from it.
	runtime.LockOSThread()
	if err := u.become(); err != nil {
		return err
	}
	return fn()
}

// become gives up the thread's rights in the file system for the user's. Unlike
// with the effective user ID, the user gets none over the thread, as to trace
// it.
//
// Of the groups the user has only his own one: in the others he has no home.
func (u user) become() error {
	groups := [1]uint32{u.gid}
	// Package unix would do it to all threads.
	if _, _, errno := unix.RawSyscall(sysSetgroups, 1, uintptr(unsafe.Pointer(&groups)), 0); errno != 0 {
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
	return nil
}
