//go:build linux

package freeze

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
	"github.com/bellhop-vm/bellhop/test/vm"
)

// patience bounds every wait for something that is to happen. The guest's
// processor is emulated, and the machine may be busy with other tests.
const patience = 2 * time.Minute

// The file systems that are written to, each mounted at /data/NAME.
var names = []string{"btrfs", "ext4", "loop", "lvm", "xfs"}

// A machine is a guest with an agent, file systems of all kinds, and a program
// that writes to those that can be frozen.
type machine struct {
	*vm.Guest
	disks  string // directory of the images
	agent  *client.Client
	frozen string // how many file systems the agent freezes
}

// layout mounts everything. What is on the disks was made on the host.
//
// The file system "loop" lies in a file on "xfs", and yet comes before it in the
// list of mounts, if $tricky is set: who freezes in the reverse order of that list
// freezes the lower one first, and waits for ever to write back the upper one.
const layout = `
set -e
mkdir -p /run/written
cd /data
mkdir ext4 xfs btrfs lvm loop ro bind overlay tmpfs fuse autofs

mount -t ext4 /dev/vda ext4
mkdir ext4/bind ext4/lower ext4/upper ext4/work
mount --bind ext4/bind bind
mount -t overlay -o lowerdir=ext4/lower,upperdir=ext4/upper,workdir=ext4/work overlay overlay

below=xfs
[ -z "$tricky" ] || below=/tmp/early
mkdir -p $below
mount -t xfs /dev/vdb $below
cat /dev/vdg >$below/image
losetup /dev/loop0 $below/image
mount -t ext4 /dev/loop0 loop
if [ -n "$tricky" ]; then
	mount --bind $below xfs
	umount -l $below # the loop device keeps it busy
fi

mount -t btrfs /dev/vdc btrfs

export LVM_SYSTEM_DIR=/etc/lvm LVM_SUPPRESS_FD_WARNINGS=1
lvm pvcreate -q /dev/vdd /dev/vde
lvm vgcreate -q group /dev/vdd /dev/vde
# The image is on the disks already.
lvm lvcreate -q -n volume -l 100%FREE -Zn -Wn group
mount -t ext4 /dev/group/volume lvm

mount -t ext4 -o ro /dev/vdf ro
mount -t tmpfs tmpfs tmpfs
# Who touches these waits for an answer that nobody gives.
sh -c 'mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 dead fuse; exec sleep 1000000' 3<>/dev/fuse >/dev/null 2>&1 &
mkfifo /run/autofs
sh -c 'mount -t autofs -o fd=3,pgrp=1,minproto=5,maxproto=5,direct dead autofs; exec sleep 1000000' 3<>/run/autofs >/dev/null 2>&1 &
for point in fuse autofs; do
	until grep -q " /data/$point " /proc/self/mountinfo; do sleep 0.1; done
done
for name in $names; do
	>$name/records
done
sync
writer /run/written $(for name in $names; do echo /data/$name; done) >/run/writer.log 2>&1 &
`

// lvmConfig keeps lvm from waiting for udev, which a guest has not, and from
// looking anywhere but at its disks.
const lvmConfig = `
devices { filter = [ "a|^/dev/vd[a-z]$|", "r|.*|" ] use_devicesfile = 0 }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
global { event_activation = 0 }
backup { backup = 0 archive = 0 }
`

// config describes a guest for a set of disks.
func config(disks string) vm.Config {
	c := vm.Config{
		CPUs: 2,
		Modules: []string{
			"virtio_blk", "xfs", "btrfs", "loop", "dm-mod", "overlay", "fuse", "autofs4",
		},
		Files:    map[string]vm.File{"/etc/lvm/lvm.conf": {Data: lvmConfig}},
		Programs: map[string]vm.Program{"/bin/lvm": vm.LVM("lvm"), "/bin/dmsetup": vm.LVM("dmsetup")},
		Start:    "mkdir /data; mount -t cgroup2 cgroup2 /sys/fs/cgroup; mkdir /sys/fs/cgroup/agent; echo +memory >/sys/fs/cgroup/cgroup.subtree_control\n",
	}
	for _, disk := range diskNames {
		c.QEMUArgs = append(c.QEMUArgs,
			// The host's page cache is what the guest wrote, whatever reached the
			// host's disk.
			"-drive", "if=none,format=raw,cache=unsafe,id="+disk+",file="+filepath.Join(disks, disk),
			"-device", "virtio-blk-pci,id=device-"+disk+",drive="+disk)
	}
	return c
}

// addWriter adds the program that writes records, and counts them.
func addWriter(t *testing.T, c *vm.Config) {
	t.Helper()
	c.Programs["/bin/writer"] = vm.Build(t, "./test/freeze/testdata/writer")
}

// boot boots a machine with an agent. With tricky, the list of mounts is not in
// the order of what lies on what.
func boot(t *testing.T, agent string, tricky bool) *machine {
	t.Helper()
	vm.Need(t)
	vm.NeedPrograms(t, programs...)
	m := &machine{disks: makeDisks(t), frozen: "5"}
	var program vm.Program
	switch agent {
	case ours:
		program = vm.Build(t, "./cmd/qemu-ga")
	case cAgent:
		program = vm.CAgent(11)
		m.frozen = "6" // it freezes the read-only one, too
	default:
		t.Fatalf("-agent=%s: not %s or %s", agent, ours, cAgent)
	}
	c := config(m.disks)
	c.Agents = []vm.Agent{{Program: program, Port: vm.AgentPort, Args: []string{"-c", configPath}}}
	c.Files[configPath] = vm.File{Data: "\n"}
	addWriter(t, &c)
	m.Guest = vm.Start(t, c)
	env := fmt.Sprintf("names='%s'\n", list(names))
	if tricky {
		env += "tricky=1\n"
	}
	m.shell(t, "%s", env+layout)
	m.connect()
	t.Cleanup(func() { m.agent.Close() })
	m.progress(t)
	return m
}

// connect makes a new connection to the agent.
func (m *machine) connect() {
	if m.agent != nil {
		m.agent.Close()
	}
	m.agent = client.New(client.Unix(m.Socket()))
	m.agent.Timeout, m.agent.SyncTimeout = patience, patience
}

// start starts the agent again, with these lines in the group [bellhop] of its
// configuration, and with these words on its command line. Unless they say
// otherwise, it logs to one of the disks, as it would in /var/log.
func (m *machine) start(t *testing.T, bellhop string, args ...string) {
	t.Helper()
	if !m.restart(t, bellhop, args...) {
		t.Fatal("the agent cannot be killed")
	}
}

// restart does as start, and returns whether the former agent could be killed.
func (m *machine) restart(t *testing.T, bellhop string, args ...string) bool {
	t.Helper()
	const (
		script  = "/etc/vm/agents/" + vm.AgentPort
		program = "/opt/" + vm.AgentPort + "/qemu-ga"
	)
	m.shell(t, `
		printf '[bellhop]\n%%s\n' '%s' >%s
		cat >%s <<-'END'
			#!/bin/sh
			echo $$ >/sys/fs/cgroup/agent/cgroup.procs
			exec %s -m virtio-serial -p /dev/virtio-ports/%s -c %s -t /run -l /data/ext4/qemu-ga.log %s
		END`,
		bellhop, configPath, script, program, vm.AgentPort, configPath, strings.Join(args, " "))
	pid := m.pid(t)
	m.shell(t, "kill -KILL %d", pid)
	if !m.ended(t, pid) {
		return false
	}
	m.connect()
	m.ping(t)
	return true
}

// kill kills the agent and waits for the next one to be started.
func (m *machine) kill(t *testing.T) {
	t.Helper()
	pid := m.pid(t)
	m.shell(t, "kill -KILL %d", pid)
	if !m.ended(t, pid) {
		t.Fatal("the agent cannot be killed")
	}
}

// ended waits until the agent with a process ID has ended and another one has
// been started.
func (m *machine) ended(t *testing.T, pid int) bool {
	t.Helper()
	for end := time.Now().Add(soon); m.pid(t) == pid; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// pid returns the process ID of the agent.
func (m *machine) pid(t *testing.T) int {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		pid, err := m.AgentPID(t.Context(), vm.AgentPort)
		if err == nil {
			return pid
		}
		// The file is empty for a moment when the agent is started again.
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// ping waits until the agent answers.
func (m *machine) ping(t *testing.T) {
	t.Helper()
	if _, err := client.Call(t.Context(), m.agent, qga.Ping, qga.Empty{}); err != nil {
		t.Fatal(err)
	}
}

// shell runs a script in the guest, through the witness.
func (m *machine) shell(t *testing.T, script string, args ...any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := m.Shell(ctx, fmt.Sprintf(script, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// acked returns the number of the last record in each file system that the
// writer knows to be durable.
func (m *machine) acked(t *testing.T) map[string]int {
	t.Helper()
	acked := make(map[string]int)
	fields := strings.Fields(m.shell(t, "cd /run/written; for n in %s; do echo $n; cat $n; echo; done", list(names)))
	for i := 0; i+1 < len(fields); {
		n, err := strconv.Atoi(fields[i+1])
		if err != nil { // nothing written there yet
			n, i = 0, i-1
		}
		acked[fields[max(i, 0)]] = n
		i += 2
	}
	return acked
}

// writable returns the file systems to which something is written within a limit.
// It does not wait for those named, and not longer than until it is so for all
// others.
func (m *machine) writable(t *testing.T, limit time.Duration, but ...string) []string {
	t.Helper()
	before := m.acked(t)
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		now := m.acked(t)
		waiting := false
		var written []string
		for _, name := range names {
			if now[name] != before[name] {
				written = append(written, name)
			} else if !slices.Contains(but, name) {
				waiting = true
			}
		}
		if !waiting || time.Now().After(end) {
			return written
		}
	}
}

// progress waits until the writer has written to all file systems.
func (m *machine) progress(t *testing.T) {
	t.Helper()
	if written := m.writable(t, patience); len(written) != len(names) {
		t.Fatalf("written only to %v of %v", written, names)
	}
}

// stalled verifies that for some time nothing was written, and returns what
// had been written before. The writer may have a record yet to acknowledge that
// was written before the freeze, but it would go on and on if it could.
func (m *machine) stalled(t *testing.T) map[string]int {
	t.Helper()
	var before, now map[string]int
	for range 3 {
		before = m.acked(t)
		time.Sleep(time.Second)
		if now = m.acked(t); maps.Equal(now, before) {
			return before
		}
	}
	t.Errorf("while frozen the writer got from %v to %v", before, now)
	return now
}

// call makes a call and returns its result as text: a number, or the error.
func call[R any](t *testing.T, m *machine, cmd qga.Command[qga.Empty, R]) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	r, err := client.Call(ctx, m.agent, cmd, qga.Empty{})
	var failed *qga.Error
	switch {
	case err == nil:
		return fmt.Sprint(r)
	case errors.As(err, &failed):
		return failed.Desc
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer in %v", soon)
	default:
		t.Fatalf("%s: %v", cmd.Name, err)
		return ""
	}
}

func (m *machine) freeze(t *testing.T) string { return call(t, m, qga.FSFreezeFreeze) }
func (m *machine) thaw(t *testing.T) string   { return call(t, m, qga.FSFreezeThaw) }
func (m *machine) status(t *testing.T) string { return call(t, m, qga.FSFreezeStatus) }

// enabled returns the names of the commands that the agent would serve.
func (m *machine) enabled(t *testing.T) []string {
	t.Helper()
	info, err := client.Call(t.Context(), m.agent, qga.GuestInfo, qga.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range info.SupportedCommands {
		if c.Enabled {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
}

// copyDisks copies the images as they are now.
func (m *machine) copyDisks(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	for _, disk := range diskNames {
		run(t, "cp", "--sparse=always", filepath.Join(m.disks, disk), dir)
	}
	return dir
}

// counts returns how many records the writer finds in each file system.
func (m *machine) counts(t *testing.T) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	var dirs string
	for _, name := range names {
		dirs += " /data/" + name
	}
	for i, n := range strings.Fields(m.shell(t, "writer -count%s", dirs)) {
		counts[names[i]], _ = strconv.Atoi(n)
	}
	return counts
}

func TestMain(m *testing.M) {
	// Where file systems are made by root only, others do not look there.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	os.Exit(m.Run())
}

// list returns words as a shell wants them.
func list(words []string) string { return strings.Join(words, " ") }
