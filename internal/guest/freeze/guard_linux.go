package freeze

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/resident"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/internal/threads"
)

// guardName is the first argument by which the program knows that it is to be
// the guard, and what ps(1) shows.
const guardName = "qemu-ga-freeze-guard"

// The descriptors that the guard is started with, besides the standard ones.
const (
	guardSocket  = 3
	guardVolumes = 4
)

const (
	// guardStart is how long the guard may take to come up.
	guardStart = 15 * time.Second
	// guardEnd is how long a guard may take to end when all is thawed.
	guardEnd = 15 * time.Second
	// guardGone is how long a thaw waits for that.
	guardGone = time.Second
	// guardThaw is how long the guard waits for one file system to thaw before
	// it turns to the next.
	guardThaw = 2 * time.Second
	// guardRepeat is how often the guard thaws when the agent is late. A freeze
	// that was under way when the agent came to a halt may succeed at any time.
	guardRepeat = time.Second
	// guardMemory is how large the guard may grow before it collects its garbage.
	guardMemory = 32 << 20
	// guardFarewell is how long the guard leaves it to the agent to thaw when
	// both are told to end.
	guardFarewell = 5 * time.Second
)

// An order is what the agent tells the guard: the milliseconds after which to
// thaw, from now, in place of what it was told before. Anything else than an
// order on the socket is its end, which is the agent's: thaw now.
type order int64

const (
	wait    order = 0  // for as long as the agent lives
	dismiss order = -1 // all is thawed: nothing is left to do
)

func after(limit time.Duration) order {
	if limit <= 0 {
		return wait
	}
	return order(max(limit.Milliseconds(), 1))
}

// A guard is the agent's end of a guard process.
type guard struct {
	pid    int
	socket *os.File
	// over is closed when the process has thawed, or is gone; ended when it is
	// gone for certain.
	over, ended chan struct{}
}

// startGuard starts a process that holds the volumes, in the order in which they
// are going to be frozen, and waits until it is ready. It thaws them after limit,
// if that is not 0, and when this process ends.
func startGuard(volumes []*volume, limit time.Duration) (*guard, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	pid, err := launchGuard(pair[1], volumes)
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	g := &guard{pid: pid, socket: os.NewFile(uintptr(pair[0]), "guard"), over: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(g.ended)
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
				return
			}
		}
	}()
	if err := g.awaitReady(); err != nil {
		g.socket.Close() // which ends it
		return nil, err
	}
	if err := g.tell(after(limit)); err != nil {
		g.socket.Close()
		return nil, err
	}
	go func() {
		defer close(g.over)
		_, _ = g.socket.Read(make([]byte, 1)) // nothing comes but the end
	}()
	return g, nil
}

// launchGuard runs this program again, as the guard.
func launchGuard(socket int, volumes []*volume) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(socket)}
	for _, v := range volumes {
		files = append(files, uintptr(v.fd))
	}
	return threads.ForkExec("/proc/self/exe", []string{guardName, strconv.Itoa(len(volumes))}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1"},
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

func (g *guard) awaitReady() error {
	if err := g.socket.SetReadDeadline(time.Now().Add(guardStart)); err != nil {
		return err
	}
	var b [1]byte
	if n, err := g.socket.Read(b[:]); n != 1 {
		return fmt.Errorf("it does not say that it is ready: %w", err)
	}
	return g.socket.SetReadDeadline(time.Time{})
}

func (g *guard) tell(o order) error {
	// A guard that stands still must not make us wait: the socket has room for
	// what a freeze has to tell.
	_ = g.socket.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := g.socket.Write(binary.LittleEndian.AppendUint64(nil, uint64(o))); err != nil {
		return strerror.Reason(err)
	}
	return nil
}

// hasThawed reports whether the process has thawed, or is gone. The kernel knows before
// over is closed.
func (g *guard) hasThawed() bool {
	raw, err := g.socket.SyscallConn()
	if err != nil {
		return false
	}
	ready := 0
	// It fails if the guard has been dismissed, and thaws nothing.
	_ = raw.Control(func(fd uintptr) {
		ready, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 0)
	})
	return ready > 0
}

// awaitEnd waits until a guard that was dismissed cannot thaw any more.
func (g *guard) awaitEnd(ctx context.Context) error {
	ctx, cancel := limited(ctx, guardEnd)
	defer cancel()
	select {
	case <-g.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// kill ends a guard that stands still after all has been thawed.
func (g *guard) kill() {
	select {
	case <-g.ended:
	default:
		_ = unix.Kill(g.pid, unix.SIGKILL)
	}
}

// dismiss ends the guard, which thaws nothing, once volumes are at rest: a freeze
// that is still under way succeeds, perhaps, when the agent cannot undo it any
// more.
func (g *guard) dismiss(volumes []*volume) {
	for slices.ContainsFunc(volumes, (*volume).busy) {
		_ = g.tell(wait)
		time.Sleep(time.Second)
	}
	_ = g.tell(dismiss) // it fails if the guard has ended already
	g.socket.Close()
}

// BeGuard turns a process that was started as the guard into that, and does not
// return then. It must be the first thing that main does.
func BeGuard() {
	if len(os.Args) != 2 || os.Args[0] != guardName {
		return
	}
	n, err := strconv.Atoi(os.Args[1])
	if err != nil || n < 0 {
		os.Exit(2)
	}
	// Not os.Exit: in a test, the race detector would wait a second there.
	syscall.Exit(keepGuard(n))
}

// keepGuard is the life of the guard of n volumes.
func keepGuard(n int) (status int) {
	// It has next to nothing to collect, unless it thaws again and again.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(guardMemory)
	withdraw()
	resident.Lock()
	volumes := make([]*volume, n)
	for i := range volumes {
		volumes[i] = &volume{fd: guardVolumes + i}
	}
	slices.Reverse(volumes)

	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	socket := os.NewFile(guardSocket, "agent")
	if _, err := socket.Write([]byte{'r'}); err != nil {
		return 1 // nothing is frozen yet
	}
	orders := make(chan order)
	go receive(socket, orders)

	deadline := time.NewTimer(time.Hour)
	deadline.Stop()
	ending := false
	for {
		select {
		case o, ok := <-orders:
			switch {
			case !ok:
				thawAll(volumes, &running)
				return 0
			case o == dismiss:
				return 0
			case ending: // whatever the agent said before it knew
			case o == wait:
				deadline.Stop()
			default:
				deadline.Reset(time.Duration(o) * time.Millisecond)
			}
		case <-terminate:
			if !ending {
				ending = true
				deadline.Reset(guardFarewell)
			}
		case <-deadline.C:
			thawAll(volumes, &running)
			// An agent that can hear it must not go on saying that all is
			// frozen.
			_ = unix.Shutdown(guardSocket, unix.SHUT_WR)
			deadline.Reset(guardRepeat)
		}
	}
}

func receive(socket *os.File, orders chan<- order) {
	defer close(orders)
	var b [8]byte
	for {
		if n, err := socket.Read(b[:]); n != len(b) || err != nil {
			return
		}
		orders <- order(binary.LittleEndian.Uint64(b[:]))
	}
}

// thawAll thaws volumes in order. One that does not answer is left behind, and
// not asked again: each question costs a thread.
func thawAll(volumes []*volume, k *kernel) {
	for _, v := range volumes {
		if v.busy() {
			continue
		}
		ctx, cancel := limited(context.Background(), guardThaw)
		_, _ = v.thaw(ctx, k) // nobody is there to be told
		cancel()
	}
}

// withdraw takes the guard out of reach of what may end the agent: the kernel's
// search for memory, and whoever kills all processes of a service by their
// control group. Neither is possible everywhere.
func withdraw() {
	put := func(name, text string) {
		if f, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteString(text)
			f.Close()
		}
	}
	put("/proc/self/comm", "qemu-ga-guard")
	put("/proc/self/oom_score_adj", "-1000")
	// The hierarchy that systemd tells services apart by, in its three forms.
	for _, hierarchy := range []string{"", "/unified", "/systemd"} {
		put("/sys/fs/cgroup"+hierarchy+"/cgroup.procs", "0")
	}
}
