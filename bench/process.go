//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// Who takes part, in the order of the columns.
const (
	theC = iota
	ours
	floor
	contenderCount
)

// A contender is a program that is measured.
type contender struct {
	program string // the executable that counts
	// command returns its arguments. Only the floor wants to know how large
	// its replies shall be.
	command func(socket, state string, reply int) []string
}

func contenders(agent string, major int) [contenderCount]contender {
	c := vm.CAgent(major)
	options := func(socket, state string) []string {
		return []string{"-m", "unix-listen", "-p", socket, "-t", state}
	}
	return [...]contender{
		theC: {c.Path, func(socket, state string, _ int) []string {
			// Not the cache's script, whose shell would add to the start.
			loader := filepath.Join(c.Lib, "ld-linux-x86-64.so.2")
			return append([]string{loader, "--library-path", c.Lib, c.Path}, options(socket, state)...)
		}},
		ours: {agent, func(socket, state string, _ int) []string {
			return append([]string{agent}, options(socket, state)...)
		}},
		floor: {"/proc/self/exe", func(socket, _ string, reply int) []string {
			return []string{"/proc/self/exe", floorCommand, socket, strconv.Itoa(reply)}
		}},
	}
}

// A process is a running contender.
type process struct {
	cmd    *exec.Cmd
	dir    string
	socket string
	stderr bytes.Buffer
}

// start starts a contender, whose files are in dir. It does not wait until it
// listens.
func (c contender) start(dir string, reply int) (*process, error) {
	p := &process{dir: dir, socket: filepath.Join(dir, "sock")}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	args := c.command(p.socket, dir, reply)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

// connect waits until the process listens.
func (p *process) connect() *conn {
	const pause = 50 * time.Microsecond
	for begin := time.Now(); ; {
		c := connect(p.socket)
		if c.err == nil || time.Since(begin) > limit/10 {
			return c
		}
		c.close()
		ts := unix.NsecToTimespec(pause.Nanoseconds())
		_ = unix.Nanosleep(&ts, nil) // shorter is fine
	}
}

// stop ends the process and removes its files.
func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
	_ = os.RemoveAll(p.dir)
}

// cpu returns the processor time that the process has used, of all threads.
func (p *process) cpu() (time.Duration, error) {
	// What clock_getcpuclockid(3) does.
	const sched = 2
	clock := int32(^p.cmd.Process.Pid<<3 | sched)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(ts.Nano()), nil
}

// memory returns a field of one of the process's files in /proc, in kB.
func (p *process) memory(file, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		}
	}
	return 0, fmt.Errorf("no %s in /proc/PID/%s", field, file)
}
