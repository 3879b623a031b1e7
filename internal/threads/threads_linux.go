package threads

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Policies of linux/sched.h.
const (
	schedOther = 0
	schedBatch = 3
)

// calm says that there may be threads of another policy than that of the program.
var calm atomic.Bool

// CalmMonitor has the thread by which the Go runtime watches the others wait for its
// turn. It is for the beginning of a program.
//
// The runtime wakes this thread at the first system call after a rest, and it looks
// every 20 microseconds then whether a call blocks, which is so that another
// thread can take over. On a machine with one processor it interrupts the very call
// that it watches, several times in a request, which then takes half as long again.
// Under SCHED_BATCH it has its share of the processor as ever, but does not interrupt:
// it runs when a call does block, for then the processor is free, or when the thread
// that has the processor has had its share.
//
// Threads and programs that the monitor starts take after it, and are not to. That is
// what Restore and ForkExec are for.
func CalmMonitor() {
	// Whoever has chosen another policy for the agent has chosen it for all of it.
	if policy(0) != schedOther {
		return
	}
	if tid, ok := monitor(); ok && setPolicy(tid, schedBatch) == nil {
		calm.Store(true)
	}
}

// monitor returns the thread that the runtime starts before any other but the first
// one. The kernel lists them in that order, and by numbers that are not ours if /proc is
// that of other processes.
func monitor() (tid int, ok bool) {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(2)
	if err != nil || len(names) < 2 || names[0] != strconv.Itoa(os.Getpid()) {
		return 0, false
	}
	tid, err = strconv.Atoi(names[1])
	return tid, err == nil
}

// Restore has the calling thread scheduled as if CalmMonitor had not been called, whoever
// put it under SCHED_BATCH. It is for a thread that clients wait for, and costs next to
// nothing.
func Restore() {
	if calm.Load() && policy(0) == schedBatch {
		_ = setPolicy(0, schedOther) // what is allowed to every thread
	}
}

// ForkExec is that of package syscall, for a process that is scheduled as if
// CalmMonitor had not been called.
func ForkExec(file string, args []string, attr *syscall.ProcAttr) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	Restore()
	return syscall.ForkExec(file, args, attr)
}

// The runtime is not told of these calls, as they do not block.

func policy(tid int) int {
	p, _, _ := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(tid), 0, 0)
	return int(p)
}

func setPolicy(tid, policy int) error {
	var param struct{ priority int32 }
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER,
		uintptr(tid), uintptr(policy), uintptr(unsafe.Pointer(&param)))
	if errno != 0 {
		return errno
	}
	return nil
}
