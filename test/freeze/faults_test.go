//go:build linux

package freeze

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A trial is what happens to a machine, told in lines that can be compared
// with what is to happen.
type trial struct {
	*machine
	t     *testing.T
	story []string
}

// tell adds a line.
func (f *trial) tell(format string, args ...any) {
	line := strings.TrimSpace(fmt.Sprintf(format, args...))
	f.t.Log(line)
	f.story = append(f.story, line)
}

func (f *trial) freeze() { f.tell("freeze: %s", f.machine.freeze(f.t)) }
func (f *trial) thaw()   { f.tell("thaw: %s", f.machine.thaw(f.t)) }
func (f *trial) status() { f.tell("status: %s", f.machine.status(f.t)) }

// written tells to which file systems something is written within a limit. It
// does not wait for those named.
func (f *trial) written(limit time.Duration, but ...string) {
	f.t.Helper()
	begin := time.Now()
	written := f.writable(f.t, limit, but...)
	f.t.Logf("seen after %.1f s", time.Since(begin).Seconds())
	switch len(written) {
	case len(names):
		f.tell("written: all")
	case 0:
		f.tell("written: none")
	default:
		f.tell("written: %s", list(written))
	}
}

// next starts the agent again, and tells if the next freeze is not as usual.
func (f *trial) next() {
	f.t.Helper()
	if !f.restart(f.t, "") {
		f.tell("the agent cannot be killed")
		return
	}
	freeze, thaw := f.machine.freeze(f.t), f.machine.thaw(f.t)
	if freeze != f.frozen || thaw != f.frozen {
		f.tell("next freeze and thaw: %s, %s", freeze, thaw)
	}
	if written := f.writable(f.t, soon); len(written) != len(names) {
		f.tell("written at last: %s", list(written))
	}
}

// A fault is something that goes wrong with a freeze.
type fault struct {
	name string
	// bellhop is lines for the group [bellhop] of the agent's configuration,
	// which QEMU's agent does not look at.
	bellhop string
	args    []string
	// tricky has QEMU's agent meet what ours meets always, see boot.
	tricky bool
	happen func(*trial)
	// ours and c are what is to be told about our agent and about QEMU's, which
	// nothing is if it has no such thing.
	ours, c string
}

// soon is the limit for what happens at once, on a busy machine. Nothing takes that
// long with our agent unless something is wrong. QEMU's does let one wait in vain:
// soon is cSoon then.
var soon = patience

// cSoon is what docs/operations.md tells of.
const cSoon = 15 * time.Second

var faults = []fault{
	{
		name:   "file system in a file of one mounted later",
		tricky: true,
		happen: func(f *trial) {
			f.freeze()
			f.thaw()
			f.written(soon)
			f.status()
		},
		ours: `
			freeze: 5
			thaw: 5
			written: all
			status: thawed`,
		c: `
			freeze: no answer in 15s
			thaw: no answer in 15s
			written: ext4
			status: no answer in 15s
			the agent cannot be killed`,
	},
	{
		name: "killed",
		happen: func(f *trial) {
			f.freeze()
			f.kill(f.t)
			f.written(soon)
			f.status()
			f.thaw()
		},
		ours: `
			freeze: 5
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: 6
			written: none
			status: frozen
			thaw: 6`,
	},
	{
		name: "killed by the kernel for want of memory",
		happen: func(f *trial) {
			f.freeze()
			pid := f.pid(f.t)
			f.shell(f.t, `
				cd /sys/fs/cgroup/agent
				echo 64K >memory.max
				until ! grep -q '^oom_kill 0' memory.events; do sleep 0.1; done
				echo max >memory.max`)
			f.ended(f.t, pid)
			f.written(soon)
			f.status()
			f.thaw()
		},
		ours: `
			freeze: 5
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: 6
			written: none
			status: frozen
			thaw: 6`,
	},
	{
		name: "killed with its control group",
		happen: func(f *trial) {
			f.freeze()
			pid := f.pid(f.t)
			f.shell(f.t, "echo 1 >/sys/fs/cgroup/agent/cgroup.kill")
			f.ended(f.t, pid)
			f.written(soon)
			f.status()
			f.thaw()
		},
		ours: `
			freeze: 5
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: 6
			written: none
			status: frozen
			thaw: 6`,
	},
	{
		name: "killed, with the state on a frozen disk",
		args: []string{"-t", "/data/ext4/state"},
		happen: func(f *trial) {
			f.freeze()
			f.kill(f.t)
			f.written(soon)
			f.status()
			f.thaw()
		},
		ours: `
			freeze: 5
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: 6
			written: none
			status: frozen
			thaw: 6`,
	},
	{
		name: "terminated",
		happen: func(f *trial) {
			f.freeze()
			f.shell(f.t, "kill -TERM %d", f.pid(f.t))
			f.written(soon)
			f.status()
			f.thaw()
		},
		ours: `
			freeze: 5
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: 6
			written: none
			status: frozen
			thaw: 6`,
	},
	{
		name:    "stopped",
		bellhop: "freeze-timeout=3",
		happen: func(f *trial) {
			f.freeze()
			f.shell(f.t, "kill -STOP %d", f.pid(f.t))
			f.written(3*time.Second + soon)
			f.shell(f.t, "kill -CONT %d", f.pid(f.t))
			f.status()
			f.thaw()
		},
		ours: `
			freeze: 5
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: 6
			written: none
			status: frozen
			thaw: 6`,
	},
	{
		name:    "host gone",
		bellhop: "freeze-timeout=3",
		happen: func(f *trial) {
			f.freeze()
			f.agent.Close()
			f.written(3*time.Second + soon)
			f.connect()
			f.status()
			f.thaw()
		},
		ours: `
			freeze: 5
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: 6
			written: none
			status: frozen
			thaw: 6`,
	},
	{
		name: "guard killed",
		happen: func(f *trial) {
			f.freeze()
			f.killGuard()
			f.written(soon)
			f.status()
			f.thaw()
		},
		ours: `
			freeze: 5
			written: all
			status: thawed
			thaw: 0`,
	},
	{
		name: "agent and guard killed",
		happen: func(f *trial) {
			f.freeze()
			pid := f.pid(f.t)
			f.shell(f.t, "kill -STOP %d", pid) // it could notice
			f.killGuard()
			f.shell(f.t, "kill -KILL %d", pid)
			f.ended(f.t, pid)
			f.written(soon)
			f.status()
			f.thaw()
		},
		ours: `
			freeze: 5
			written: all
			status: thawed
			thaw: 0`,
	},
	{
		name: "disk full",
		args: []string{"-t", "/data/lvm/state", "-l", "/data/lvm/log"},
		happen: func(f *trial) {
			f.shell(f.t, "dd if=/dev/zero of=/data/lvm/fill bs=64k 2>/dev/null; sync")
			f.freeze()
			f.status()
			f.shell(f.t, "rm -f /data/lvm/fill </dev/null >/dev/null 2>&1 &")
			f.thaw()
			f.shell(f.t, "while [ -e /data/lvm/fill ]; do sleep 0.1; done")
			f.status()
		},
		ours: `
			freeze: 5
			status: frozen
			thaw: 5
			status: thawed`,
		c: `
			freeze: 6
			status: frozen
			thaw: 6
			status: thawed`,
	},
	{
		name: "no room for the mark of a freeze",
		args: []string{"-t", "/data/tmpfs/state"},
		happen: func(f *trial) {
			f.shell(f.t, "mount -o remount,nr_inodes=1 /data/tmpfs || mount -o remount,nr_inodes=$(find /data/tmpfs | wc -l) /data/tmpfs")
			f.freeze()
			f.tell("state: %s", f.shell(f.t, "ls -x /data/tmpfs/state | tr -d '\\n'"))
			f.kill(f.t)
			f.written(soon)
			f.status()
			f.thaw()
			f.shell(f.t, "mount -o remount,nr_inodes=1000 /data/tmpfs")
		},
		ours: `
			freeze: 5
			state: qga.state
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: 6
			state: qga.state
			written: none
			status: no answer in 15s
			thaw: no answer in 15s
			the agent cannot be killed`,
	},
	{
		name:    "hook hangs before the freeze",
		bellhop: "freeze-hook-limit=10",
		args:    []string{"-F/run/hook"},
		happen: func(f *trial) {
			f.hook("[ $1 = thaw ] || sleep 1000")
			f.freeze()
			f.written(soon)
			f.status()
			f.thaw()
		},
		ours: `
			freeze: child process has failed to execute fsfreeze hook: /run/hook freeze did not end within 10s
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: no answer in 15s
			written: all
			status: no answer in 15s
			thaw: no answer in 15s`,
	},
	{
		name:    "hook hangs after the thaw",
		bellhop: "freeze-hook-limit=10",
		args:    []string{"-F/run/hook"},
		happen: func(f *trial) {
			f.hook("[ $1 = freeze ] || sleep 1000")
			f.freeze()
			f.thaw()
			f.written(soon)
			f.status()
			f.hook("")
		},
		ours: `
			freeze: 5
			thaw: child process has failed to execute fsfreeze hook: /run/hook thaw did not end within 10s
			written: all
			status: thawed`,
		c: `
			freeze: 6
			thaw: no answer in 15s
			written: all
			status: no answer in 15s`,
	},
	{
		name: "hook fails",
		args: []string{"-F/run/hook"},
		happen: func(f *trial) {
			f.hook("[ $1 = thaw ]")
			f.freeze()
			f.written(soon)
			f.status()
			f.thaw()
			f.hook("")
		},
		ours: `
			freeze: child process has failed to execute fsfreeze hook: exit status 1
			written: all
			status: thawed
			thaw: 0`,
		c: `
			freeze: child process has failed to execute fsfreeze hook: exit status 1
			written: all
			status: thawed
			thaw: 0`,
	},
	{
		name:    "hook of a directory fails",
		bellhop: "freeze-hook-dir=/run/hooks",
		happen: func(f *trial) {
			f.shell(f.t, `mkdir -p /run/hooks; cd /run/hooks
				printf '#!/bin/sh\necho first $1 >>/run/hooks.log\n' >10-first
				printf '#!/bin/sh\necho second $1 >>/run/hooks.log\n[ $1 = thaw ]\n' >20-second
				printf '#!/bin/sh\necho third $1 >>/run/hooks.log\n' >30-third
				chmod +x *`)
			f.freeze()
			f.written(soon)
			f.status()
			f.thaw()
			f.tell("hooks: %s", strings.Join(strings.Split(strings.TrimSpace(f.shell(f.t, "cat /run/hooks.log")), "\n"), ", "))
			f.shell(f.t, "rm -r /run/hooks")
		},
		ours: `
			freeze: fsfreeze hook 20-second: child process has failed to execute fsfreeze hook: exit status 1
			written: all
			status: thawed
			thaw: 0
			hooks: first freeze, second freeze, second thaw, first thaw, third thaw, second thaw, first thaw`,
	},
	{
		name: "unmounted",
		happen: func(f *trial) {
			f.shell(f.t, "touch /run/written/btrfs.pause; sleep 1")
			f.freeze()
			f.tell("umount: %s", f.shell(f.t, "umount /data/btrfs 2>&1 | sed 's/.*: //'"))
			f.thaw()
			f.shell(f.t, "mountpoint -q /data/btrfs || mount -t btrfs /dev/vdc /data/btrfs; rm /run/written/btrfs.pause")
			f.written(soon)
		},
		ours: `
			freeze: 5
			umount: Device or resource busy
			thaw: 5
			written: all`,
		c: `
			freeze: 6
			umount:
			thaw: 5
			written: ext4 loop lvm xfs
			next freeze and thaw: 5, 6`,
	},
	{
		name: "unmounted lazily",
		happen: func(f *trial) {
			f.freeze()
			f.tell("umount: %s", f.shell(f.t, "umount -l /data/btrfs 2>&1"))
			f.thaw()
			f.shell(f.t, "mount -t btrfs /dev/vdc /data/btrfs")
			f.written(soon)
		},
		ours: `
			freeze: 5
			umount:
			thaw: 5
			written: all`,
		c: `
			freeze: 6
			umount:
			thaw: 5
			written: ext4 loop lvm xfs
			next freeze and thaw: 5, 6`,
	},
	{
		name: "disk unplugged",
		happen: func(f *trial) {
			f.plug()
			f.freeze()
			f.unplug()
			f.thaw()
			f.written(soon)
			f.shell(f.t, "umount /data/plugged; rmdir /data/plugged")
		},
		ours: `
			freeze: 6
			thaw: 6
			written: all`,
		c: `
			freeze: 7
			thaw: 7
			written: all`,
	},
	{
		name: "frozen by another program before",
		happen: func(f *trial) {
			f.shell(f.t, "fsfreeze --freeze /data/lvm")
			f.freeze()
			f.thaw()
			f.written(soon)
			f.status()
		},
		ours: `
			freeze: 4
			thaw: 5
			written: all
			status: thawed`,
		c: `
			freeze: 5
			thaw: 6
			written: all
			status: thawed`,
	},
	{
		name: "thawed by another program",
		happen: func(f *trial) {
			f.freeze()
			f.shell(f.t, "fsfreeze --unfreeze /data/lvm")
			f.thaw()
			f.written(soon)
			f.status()
		},
		ours: `
			freeze: 5
			thaw: 4
			written: all
			status: thawed`,
		c: `
			freeze: 6
			thaw: 5
			written: all
			status: thawed`,
	},
	{
		name:    "I/O that does not end",
		bellhop: "freeze-mount-limit=10",
		happen: func(f *trial) {
			f.shell(f.t, "dmsetup suspend --noflush --nolockfs group-volume")
			f.freeze()
			f.written(soon, "lvm")
			f.shell(f.t, "dmsetup resume group-volume")
			f.status()
			f.written(soon)
		},
		ours: `
			freeze: failed to freeze /data/lvm: no end after 10s
			written: btrfs ext4 loop xfs
			status: thawed
			written: all`,
		c: `
			freeze: no answer in 15s
			written: btrfs ext4 loop xfs
			status: frozen
			written: none
			next freeze and thaw: Command guest-fsfreeze-freeze has been disabled: the command is not allowed, 6`,
	},
	{
		name:    "disk that does not answer",
		bellhop: "freeze-mount-limit=10",
		happen: func(f *trial) {
			f.throttle("btrfs", 1)
			f.freeze()
			f.written(soon, "btrfs")
			f.throttle("btrfs", 0)
			f.status()
			f.written(soon)
		},
		ours: `
			freeze: failed to freeze /data/btrfs: no end after 10s
			written: ext4 loop lvm xfs
			status: thawed
			written: all`,
		c: `
			freeze: no answer in 15s
			written: ext4 loop xfs
			status: frozen
			written: none
			next freeze and thaw: Command guest-fsfreeze-freeze has been disabled: the command is not allowed, 6`,
	},
	{
		// The others are frozen before that one.
		name:    "write that does not end",
		bellhop: "freeze-mount-limit=10",
		happen: func(f *trial) {
			release := f.holdWrite("/data/ext4/first")
			f.freeze()
			f.written(soon, "ext4")
			release()
			f.status()
			f.written(soon)
		},
		ours: `
			freeze: failed to freeze /data/ext4: no end after 10s
			written: btrfs loop lvm xfs
			status: thawed
			written: all`,
		c: `
			freeze: no answer in 15s
			written: none
			status: frozen
			written: none
			next freeze and thaw: Command guest-fsfreeze-freeze has been disabled: the command is not allowed, 6`,
	},
	{
		// It remains until its system call ends, and the guard cannot tell.
		name:    "killed during a freeze that does not end",
		bellhop: "freeze-limit=10",
		happen: func(f *trial) {
			release := f.holdWrite("/data/ext4/second")
			pid := f.pid(f.t)
			f.freezing()
			f.shell(f.t, "kill -KILL %d", pid)
			f.written(10*time.Second+soon, "ext4")
			release()
			f.ended(f.t, pid)
			f.connect()
			f.written(soon)
			f.status()
			f.thaw()
		},
		ours: `
			written: btrfs loop lvm xfs
			written: all
			status: thawed
			thaw: 0`,
		c: `
			written: none
			written: none
			status: frozen
			thaw: 6`,
	},
	{
		name:    "excluded file system",
		bellhop: "freeze-exclude=/data/bt*,/nowhere",
		happen: func(f *trial) {
			f.freeze()
			f.written(soon, "ext4", "loop", "lvm", "xfs")
			f.thaw()
			f.written(soon)
		},
		ours: `
			freeze: 4
			written: btrfs
			thaw: 4
			written: all`,
	},
}

// TestFaults lets things go wrong with freezes. Each time all file systems have
// to be writable again, and the next freeze has to work.
func TestFaults(all *testing.T) {
	if *agent == cAgent {
		defer func(limit time.Duration) { soon = limit }(soon)
		soon = cSoon
	}
	var m *machine
	for _, fault := range faults {
		ok := all.Run(fault.name, func(t *testing.T) {
			want := fault.ours
			if *agent == cAgent {
				if want = fault.c; want == "" {
					t.Skip("QEMU's agent has no such thing")
				}
			}
			// QEMU's agent leaves little behind that works.
			switch {
			case *agent == cAgent:
				m = boot(t, cAgent, fault.tricky)
			case m == nil:
				m = boot(all, *agent, true)
			}
			m.shell(t, "mkdir -p /data/ext4/state /data/lvm/state /data/tmpfs/state")
			m.start(t, fault.bellhop, fault.args...)
			f := &trial{machine: m, t: t}
			fault.happen(f)

			f.next()
			if got, want := f.story, lines(want); !slices.Equal(got, want) {
				t.Errorf("got:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
		})
		if !ok {
			m = nil // the next one shall not suffer from it
		}
	}
	if m == nil || *agent == cAgent {
		return
	}
	if out := m.shell(all, "dmesg | grep -e Oops -e BUG: -e WARNING: -e 'blocked for more'; true"); out != "" {
		all.Errorf("the kernel complains:\n%s", out)
	}
	m.powerFails(all)
}

// lines returns the lines of a text without their indentation.
func lines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// killGuard kills the process that holds the frozen file systems open.
func (f *trial) killGuard() {
	f.t.Helper()
	f.shell(f.t, "kill -KILL $(grep -al ^qemu-ga-freeze-guard /proc/[0-9]*/cmdline | cut -d/ -f3)")
}

// hook makes the program that is to run at a freeze.
func (f *trial) hook(script string) {
	f.t.Helper()
	f.shell(f.t, "printf '#!/bin/sh\\n%%s\\n' '%s' >/run/hook; chmod +x /run/hook", script)
}

// throttle lets a disk do no more than some bytes a second, 0 for any number.
func (f *trial) throttle(disk string, bps int) {
	f.t.Helper()
	f.qmp("block_set_io_throttle", map[string]any{
		"device": disk, "bps": bps, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
	})
}

// plug plugs in one more disk and mounts it.
func (f *trial) plug() {
	f.t.Helper()
	image := filepath.Join(tempDir(f.t), "plugged")
	makeDisk(f.t, image, 8*mib, "mkfs.ext4", "-q")
	f.qmp("blockdev-add", map[string]any{
		"driver": "raw", "node-name": "plugged", "file": map[string]any{"driver": "file", "filename": image},
	})
	f.qmp("device_add", map[string]any{"driver": "virtio-blk-pci", "id": "device-plugged", "drive": "plugged"})
	f.shell(f.t, "until [ -b /dev/vdi ]; do sleep 0.1; done; mkdir -p /data/plugged; mount -t ext4 /dev/vdi /data/plugged; echo >/data/plugged/file")
}

// unplug pulls it out again.
func (f *trial) unplug() {
	f.t.Helper()
	f.qmp("device_del", map[string]any{"id": "device-plugged"})
	f.event("DEVICE_DELETED")
	f.shell(f.t, "while [ -b /dev/vdi ]; do sleep 0.1; done")
}

// freezing asks for a freeze, leaves, and waits until it is well under way.
func (f *trial) freezing() {
	f.t.Helper()
	f.agent.Close()
	conn, err := net.Dial("unix", f.Socket())
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, `{"execute":"guest-fsfreeze-freeze"}`); err != nil {
		f.t.Fatal(err)
	}
	// Either agent leaves this mark before it freezes the first.
	f.shell(f.t, "until [ -e /run/qga.state.isfrozen ]; do sleep 0.1; done; sleep 2")
}

// holdWrite begins a write to a new file that does not end before release: the
// kernel has no freeze until then.
func (f *trial) holdWrite(path string) (release func()) {
	f.t.Helper()
	pid := f.shell(f.t, `writer -hold %s >/dev/null 2>&1 &
		while [ ! -e %[1]s ]; do sleep 0.1; done
		sleep 0.1; echo -n $!`, path)
	return func() {
		f.t.Helper()
		f.shell(f.t, "kill %s", pid)
	}
}

// qmp runs a command of QEMU's monitor.
func (f *trial) qmp(command string, args any) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	if _, err := f.QMP(ctx, command, args); err != nil {
		f.t.Fatal(err)
	}
}

// event waits for an event that QEMU reports.
func (f *trial) event(name string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	if _, err := f.WaitEvent(ctx, name); err != nil {
		f.t.Fatal(err)
	}
}
