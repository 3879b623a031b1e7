//go:build linux

package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// AgentPort is the name of the port where agents and hosts meet by custom.
const AgentPort = "org.qemu.guest_agent.0"

// witnessPort is where the agent behind [Guest.Run] is.
const witnessPort = "witness"

// ready is what the init prints once every agent has been started.
const ready = "GUEST-READY"

// Agent is a guest agent that runs in a guest. It is started again whenever
// it ends.
type Agent struct {
	Program Program
	// Port is the name of a virtio-serial port that is made for the agent and
	// given to it by -m and -p. No two agents may have the same. If it is
	// empty, Args must say where the agent listens.
	Port string
	// Args are more arguments for the agent.
	Args []string
}

// name is what the agent's files in the guest are called.
func (a Agent) name() string {
	if a.Port != "" {
		return a.Port
	}
	return a.Program.name()
}

// File is a file to put into a guest.
type File struct {
	Data string
	// Mode is the permission, 0 for 0644. With [fs.ModeSymlink] the file is a
	// link to Data.
	Mode fs.FileMode
}

// Config says what a guest is made of.
type Config struct {
	// Image is the guest's root file system, of which every guest has a copy
	// of its own. Without one the guest is nothing but busybox.
	Image Image
	// Agents are started in this order, but do not wait for each other.
	Agents []Agent
	// NoWitness leaves out the agent that [Guest.Run] needs, for measurements
	// that it could disturb.
	NoWitness bool

	// Memory is in MiB, 0 for 512.
	Memory int
	// CPUs is the number of virtual CPUs, 0 for 1.
	CPUs int
	// CPU is one of QEMU's models, "" for max: all that the emulation can do.
	CPU string
	// Modules are loaded into the kernel, with those they depend on, besides
	// the ones that the ports need and, with an image, those that udev finds
	// devices for. The kernel of a guest without image has ext4 and nvme built in;
	// virtio_blk, virtio_scsi, ata_piix, sd_mod, xfs, btrfs and button are
	// modules.
	Modules []string
	// KernelArgs are added to the kernel's command line.
	KernelArgs []string
	// QEMUArgs are added to QEMU's command line, for disks and the like.
	QEMUArgs []string

	// Files and Programs are put into the guest under these names. Those of an
	// image must not lead through its links, such as /bin and /lib.
	Files    map[string]File
	Programs map[string]Program
	// Start is shell commands that run in the guest before the agents do.
	Start string

	// Console, if not nil, is given what the guest prints, as it does.
	Console io.Writer
}

// Guest is a running guest. Its methods may be called from several goroutines.
type Guest struct {
	dir      string
	image    Image
	cmd      *exec.Cmd
	console  *console
	qmp      *monitor
	witness  *witness
	bootTime time.Duration

	ended chan struct{} // closed when QEMU has ended
	err   error         // how, to be read after that
}

// Boot starts a guest and waits until its agents have been started. The
// context bounds only this; the guest lives until [Guest.Stop], its own
// shutdown, or the end of the calling process.
func Boot(ctx context.Context, c Config) (*Guest, error) {
	if err := Check(c.Image); err != nil {
		return nil, err
	}
	// Unix sockets have short paths, so this is not below a test's directory.
	dir, err := os.MkdirTemp("", "bellhop-vm-")
	if err != nil {
		return nil, err
	}
	g := &Guest{
		dir:     dir,
		image:   c.Image,
		console: &console{copy: c.Console, ready: make(chan struct{})},
		ended:   make(chan struct{}),
	}
	if !c.NoWitness {
		witness := CAgent(11)
		if c.Image != NoImage {
			witness = ImageCAgent
		}
		c.Agents = append(c.Agents[:len(c.Agents):len(c.Agents)], Agent{Program: witness, Port: witnessPort})
		g.witness = newWitness(g.PortSocket(witnessPort))
	}

	begin := time.Now()
	if err := g.start(&c); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	select {
	case <-g.console.ready:
	case <-g.ended:
		err = errors.New("guest ended before it was ready")
	case <-ctx.Done():
		err = fmt.Errorf("guest not ready: %w", context.Cause(ctx))
	}
	if err == nil {
		_, err = g.QMP(ctx, "qmp_capabilities", nil)
	}
	if err == nil {
		// QEMU has read it, and little is left behind if we are killed.
		err = os.Remove(g.initrd())
	}
	if err != nil {
		err = errors.Join(err, g.Stop(context.WithoutCancel(ctx)))
		return nil, fmt.Errorf("%w\nconsole:\n%s", err, g.Console())
	}
	g.bootTime = time.Since(begin)
	return g, nil
}

// DirectBoot is what a guest boots from when somebody else than [Boot] runs it.
type DirectBoot struct {
	Kernel    string // the path of the kernel
	Arguments string // its command line
	Initramfs []byte
}

// NewDirectBoot makes a guest that c describes. Devices and a witness, which
// are up to whoever runs QEMU, are the caller's: of c, only what is inside the
// guest counts. The agents wait for their ports.
func NewDirectBoot(c Config) (*DirectBoot, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	root, err := initramfs(&c)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	return &DirectBoot{Kernel: kernel(&c), Arguments: kernelArgs(&c), Initramfs: root}, nil
}

func kernel(c *Config) string {
	if c.Image != NoImage {
		return c.Image.file("vmlinux")
	}
	return cached("kernel/vmlinuz")
}

// kernelArgs returns the kernel's command line. A panic reboots, which
// -no-reboot makes the end of QEMU.
func kernelArgs(c *Config) string {
	return strings.Join(append([]string{"console=ttyS0 quiet panic=-1 cryptomgr.notests"}, c.KernelArgs...), " ")
}

// start writes the initramfs and runs QEMU.
func (g *Guest) start(c *Config) error {
	root, err := initramfs(c)
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	if err := os.WriteFile(g.initrd(), root, 0o600); err != nil {
		return err
	}
	qmp, theirs, err := monitorPair()
	if err != nil {
		return err
	}
	defer theirs.Close()

	var stderr bytes.Buffer
	cmd := exec.Command(qemu, g.args(c)...)
	cmd.Stdout = g.console
	cmd.Stderr = &stderr
	cmd.ExtraFiles = []*os.File{theirs} // file descriptor 3
	// However we end, QEMU must not outlive us ...
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// ... where "us" is, for the kernel, the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if err := cmd.Wait(); err != nil {
			g.err = fmt.Errorf("%s: %w: %s", qemu, err, bytes.TrimSpace(stderr.Bytes()))
		}
		close(g.ended)
	}()
	if err := <-started; err != nil {
		return errors.Join(err, qmp.conn.Close())
	}
	g.cmd, g.qmp = cmd, qmp
	go qmp.read()
	return nil
}

func (g *Guest) initrd() string { return filepath.Join(g.dir, "initramfs") }

// args returns QEMU's arguments.
//
// Medians of the time to GUEST-READY that the defaults were chosen by, on two
// cores with QEMU 7.2: 2.2 s for pc and q35, 1.9 s for microvm, but that has
// no suspend and no IDE disks. An initramfs compressed by gzip -1 costs 0.3 s
// more than one of 14 MB that is not. The self-tests of the kernel's
// cryptography are 0.25 s. A decompressed kernel, booted by PVH, would save
// 0.2 s, but does not survive suspend to RAM. A second CPU costs 0.1 s. The
// model of CPU, the memory, the size of the translation cache, the witness and
// nokaslr, mitigations=off or tsc=reliable make no difference.
func (g *Guest) args(c *Config) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", "512",
		"-kernel", kernel(c), "-initrd", g.initrd(),
		"-append", kernelArgs(c),
		"-chardev", "stdio,id=console,signal=off", "-device", "isa-serial,chardev=console",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
		"-device", "virtio-serial-pci,id=ports",
	}
	if c.Image != NoImage {
		// What the guest writes goes to a file that QEMU has removed already.
		args = append(args,
			"-drive", "if=none,id=root,format=raw,snapshot=on,cache=unsafe,file="+c.Image.file("root.img"),
			"-device", "virtio-blk-pci,drive=root,serial=root")
	}
	// A later option overrides an earlier one.
	if c.CPU != "" {
		args = append(args, "-cpu", c.CPU)
	}
	if c.CPUs != 0 {
		args = append(args, "-smp", strconv.Itoa(c.CPUs))
	}
	if c.Memory != 0 {
		args = append(args, "-m", strconv.Itoa(c.Memory))
	}
	for i, agent := range c.Agents {
		if agent.Port == "" {
			continue
		}
		id := "port" + strconv.Itoa(i)
		args = append(args,
			"-chardev", "socket,server=on,wait=off,id="+id+",path="+g.PortSocket(agent.Port),
			"-device", "virtserialport,bus=ports.0,id="+id+",chardev="+id+",name="+agent.Port)
	}
	return append(args, c.QEMUArgs...)
}

// Socket returns the path of the unix socket that is the host's end of
// [AgentPort]. One client at a time can be connected to it.
func (g *Guest) Socket() string { return g.PortSocket(AgentPort) }

// PortSocket returns the path of the unix socket that is the host's end of the
// named port.
func (g *Guest) PortSocket(name string) string { return filepath.Join(g.dir, name+".sock") }

// Console returns what the guest has printed so far.
func (g *Guest) Console() string { return g.console.String() }

// BootTime returns how long [Boot] took.
func (g *Guest) BootTime() time.Duration { return g.bootTime }

// QMP runs a command of QEMU's monitor. Args, if not nil, are its arguments,
// anything that marshals to a JSON object. If the context ends first, the
// monitor is lost to all later calls.
func (g *Guest) QMP(ctx context.Context, command string, args any) (json.RawMessage, error) {
	return g.qmp.call(ctx, command, args)
}

// WaitEvent waits for QEMU to report the named event, and forgets it and those
// before it. One that was reported earlier counts if it has not been waited
// for.
func (g *Guest) WaitEvent(ctx context.Context, name string) (Event, error) {
	return g.qmp.waitEvent(ctx, name)
}

// Wait waits until the guest has ended by itself. The error is QEMU's failure,
// or the context's.
func (g *Guest) Wait(ctx context.Context) error {
	select {
	case <-g.ended:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("guest still runs: %w", context.Cause(ctx))
	}
}

// Stop ends the guest, as if by its power plug, and removes its files. QEMU is
// asked first and killed when the context ends or after a minute. It is
// harmless to call it again, or after the guest has ended by itself.
func (g *Guest) Stop(ctx context.Context) error {
	if g.witness != nil {
		g.witness.close()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// The answer may be lost with QEMU; what counts is that it ends.
	_, _ = g.QMP(ctx, "quit", nil)
	err := g.Wait(ctx)
	if ctx.Err() != nil {
		g.cmd.Process.Kill()
		<-g.ended
		err = errors.Join(err, g.err)
	}
	g.qmp.conn.Close()
	return errors.Join(err, os.RemoveAll(g.dir))
}

// console keeps what the guest prints, and sees when it is ready.
type console struct {
	copy  io.Writer
	ready chan struct{} // closed then

	mu      sync.Mutex
	text    bytes.Buffer
	isReady bool
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.Write(p)
	if !c.isReady && bytes.Contains(c.text.Bytes(), []byte(ready)) {
		c.isReady = true
		close(c.ready)
	}
	if c.copy != nil {
		return c.copy.Write(p)
	}
	return len(p), nil
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}
