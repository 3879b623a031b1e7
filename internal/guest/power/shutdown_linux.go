package power

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
)

// A way is what becomes of the machine, as the various parties call it.
type way struct {
	program string // which does it, and systemctl's word for it
	flag    string // of shutdown(8)
	// The signals for it to the first process, if that is systemd or that of
	// BusyBox.
	systemd, busybox unix.Signal
	reboot           uint32 // the command of reboot(2)
}

// realtime is the first signal for applications as glibc counts.
const realtime = unix.Signal(34)

var ways = map[qga.ShutdownMode]way{
	qga.Powerdown: {"poweroff", "-P", realtime + 4, unix.SIGUSR2, unix.LINUX_REBOOT_CMD_POWER_OFF},
	qga.Halt:      {"halt", "-H", realtime + 3, unix.SIGUSR1, unix.LINUX_REBOOT_CMD_HALT},
	qga.Reboot:    {"reboot", "-r", realtime + 5, unix.SIGTERM, unix.LINUX_REBOOT_CMD_RESTART},
}

// shutdown shuts the machine down. What a program says to that is the answer,
// also if it refuses: it may know why not. Only if none can be run we do without.
// That the client leaves does not stop it.
func (p *power) shutdown(ctx context.Context, args qga.ShutdownArgs) (qga.Empty, error) {
	mode := qga.Powerdown
	if args.Mode != nil {
		mode = *args.Mode
		p.Audit("guest-shutdown called, mode: %s", mode)
	} else {
		p.Audit("guest-shutdown called, mode: (null)")
	}
	w, ok := ways[mode]
	if !ok {
		return qga.Empty{}, qga.Failure("mode is invalid (valid values are: halt|powerdown|reboot")
	}

	ctx = context.WithoutCancel(ctx)
	var first error
	for _, program := range p.programs(w) {
		_, err := p.Run(ctx, run.Command{Args: program, Action: "shutdown", Limit: limit})
		if !absent(err) && !crowded(err) {
			return qga.Empty{}, err
		}
		if first == nil {
			first = err
		}
	}
	if p.bySignal(w) {
		return qga.Empty{}, nil
	}
	if crowded(first) { // there is a program, and a better time
		return qga.Empty{}, first
	}
	if err := p.byKernel(w); err != nil {
		// What is wrong is rather that there is no program, which is also the
		// C agent's answer.
		p.Log(logging.Warning, "failed to shut down: %v", err)
		return qga.Empty{}, first
	}
	return qga.Empty{}, nil
}

// absent reports whether err says that there is no such program to run.
func absent(err error) bool {
	_, ok := errors.AsType[*run.StartError](err)
	return ok
}

// crowded reports whether err says that no program can be run at all: there is
// no memory, or there are too many processes.
func crowded(err error) bool {
	return !absent(err) && (errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EAGAIN))
}

// programs returns what to run, in turn until one can be: the C agent's choice
// first, then the same wherever else it may be.
func (p *power) programs(w way) [][]string {
	shutdown := func(program string) []string {
		return []string{program, "-h", w.flag, "+0", "hypervisor initiated shutdown"}
	}
	var list [][]string
	if direct := "/sbin/" + w.program; stuck.Executable(p.Root.Path(direct)) == nil {
		list = append(list, []string{direct})
	}
	list = append(list, shutdown("/sbin/shutdown"), []string{w.program}, shutdown("shutdown"))
	if p.Root.Exists("/run/systemd/system") {
		list = append(list, []string{"systemctl", w.program})
	}
	return list
}

// bySignal asks the first process, if it is one that understands, and reports
// whether that is so.
func (p *power) bySignal(w way) bool {
	signal, ok := p.initSignal(w)
	if !ok || os.Getpid() == 1 { // which would be us
		return false
	}
	if err := p.Kernel.Signal(1, signal); err != nil {
		p.Log(logging.Warning, "failed to signal the init: %v", err)
		return false
	}
	p.Log(logging.Message, "no program could be run to shut down; sent signal %d to the init", signal)
	return true
}

// initSignal returns the signal for the first process. Others than those that
// are known would ignore it, as the kernel spares the first process what signals
// do to others; and then nothing would happen, without an error.
func (p *power) initSignal(w way) (unix.Signal, bool) {
	// In a container /run may be the host's, but not this.
	exe, _ := p.Root.Readlink("/proc/1/exe")
	switch strings.TrimSuffix(path.Base(exe), " (deleted)") { // by an update
	case "systemd":
		return w.systemd, true
	case "busybox": // is also a shell, and all kinds of things
		cmdline, _ := p.Root.ReadFile("/proc/1/cmdline")
		name, _, _ := strings.Cut(string(cmdline), "\x00")
		name = path.Base(strings.TrimSpace(name))
		return w.busybox, name == "init" || name == "linuxrc"
	}
	return 0, false
}

// Before the kernel takes the power away, processes have farewell to end after
// SIGTERM, and the disks patience to take what is in memory: one that does not
// answer must not keep the machine up.
const (
	farewell = 5 * time.Second
	patience = 30 * time.Second
)

var errNotAllowed = errors.New("reboot: operation not permitted")

// byKernel shuts down without anybody's help.
func (p *power) byKernel(w way) error {
	if !p.Kernel.MayReboot() {
		return errNotAllowed // before anybody is told to end
	}
	p.Log(logging.Message, "there is nobody to shut down; asking the kernel itself")
	_ = p.Kernel.Signal(-1, unix.SIGTERM)
	p.sleep(farewell)
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		p.Kernel.Sync()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-synced:
	case <-timer.C:
	}
	if err := p.Kernel.Reboot(w.reboot); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return nil
}
