package power

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/qga"
)

// Config says how the machine is reached. None of its functions may be nil, so
// that no test has power over the machine that it runs on by mistake.
type Config struct {
	// Root takes the place of the root directory.
	Root root.Dir
	// Run runs a program.
	Run run.Func
	// Kernel is what is done where there is no program to do it.
	Kernel Kernel
	// Audit notes what the host has asked for, Log how it went.
	Audit func(format string, args ...any)
	Log   func(level logging.Level, format string, args ...any)
}

// A Kernel has the last word on power. System is the one that runs.
type Kernel interface {
	// Signal sends a signal to a process, or to all but the first and our own
	// if pid is -1.
	Signal(pid int, s unix.Signal) error
	// MayReboot reports whether Reboot would be allowed.
	MayReboot() bool
	// Sync writes what is in memory to the disks.
	Sync()
	// Reboot does what a command of reboot(2) says.
	Reboot(command uint32) error
	// Slept is the time that the machine has been asleep since its start.
	Slept() time.Duration
}

// System is the kernel of the running system.
type System struct{}

// Signal is kill(2).
func (System) Signal(pid int, s unix.Signal) error { return unix.Kill(pid, s) }

// MayReboot reports whether we have the capability. In most containers nobody
// has.
func (System) MayReboot() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_BOOT) != 0
}

// Sync is sync(2).
func (System) Sync() { unix.Sync() }

// Reboot is reboot(2).
func (System) Reboot(command uint32) error { return unix.Reboot(int(int32(command))) }

// Slept is by how much the clock that counts while the machine sleeps is ahead
// of the one that does not.
func (System) Slept() time.Duration {
	var awake, all unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &all) != nil {
		return 0
	}
	return time.Duration(all.Nano() - awake.Nano())
}

// Commands returns the commands of this package.
func Commands(cfg Config) []agent.Handler {
	p := &power{Config: cfg, sleep: time.Sleep}
	return []agent.Handler{
		agent.Handle(qga.Shutdown, p.shutdown),
		agent.Handle(qga.SuspendDisk, func(ctx context.Context, _ qga.Empty) (qga.Empty, error) {
			return qga.Empty{}, p.suspend(ctx, toDisk)
		}),
		agent.Handle(qga.SuspendRAM, func(ctx context.Context, _ qga.Empty) (qga.Empty, error) {
			return qga.Empty{}, p.suspend(ctx, toRAM)
		}),
		agent.Handle(qga.SuspendHybrid, func(ctx context.Context, _ qga.Empty) (qga.Empty, error) {
			return qga.Empty{}, p.suspend(ctx, toBoth)
		}),
	}
}

type power struct {
	Config
	sleep func(time.Duration)
}

// limit is how long a program may take. Most only tell the init, which takes
// milliseconds; but some wait for what they have begun, and killing those would
// stop it half way. Time that the machine is asleep does not count.
const limit = 10 * time.Minute
