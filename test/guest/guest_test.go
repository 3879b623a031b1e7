//go:build linux

// Package guest tests the agent where it lives: in a guest, on a virtio-serial
// port and on the other channels that a guest has. What the agent did is
// verified by a second agent, QEMU's own, which shares no code with it.
package guest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
	"github.com/bellhop-vm/bellhop/test/vm"
)

// patience bounds every wait for the guest. Its processor is emulated, and the
// machine may be busy with other tests.
const patience = 5 * time.Minute

// Where the agents are that are not on vm.AgentPort.
const (
	latePort  = "org.example.late"
	vsockPort = "1024"
	// anyCID accepts clients whatever context they address.
	anyCID = "4294967295"
	// localCID is the guest's address for itself.
	localCID = "1"
)

// A guest is a booted guest with agents on all its channels.
type guest struct {
	*vm.Guest
	serial string // the host's end of the serial line
	late   string // the host's end of the port that is not plugged in at first
	killed int    // how often the agent on vm.AgentPort was killed
}

// TestGuest boots one guest for many tests. They run in order, the rougher the
// later; each of them leaves the agents serving.
func TestGuest(t *testing.T) {
	vm.Need(t)
	g := boot(t)
	for _, tt := range []struct {
		name string
		fn   func(*testing.T, *guest)
	}{
		{"agent itself", testAgentItself},
		{"system", testSystem},
		{"files", testFiles},
		{"file errors", testFileErrors},
		{"large file", testLargeFile},
		{"exec", testExec},
		{"exec signals", testExecSignals},
		{"dead server", testDeadServer},
		{"garbage first", testGarbageFirst},
		{"two requests in one write", testTwoInOneWrite},
		{"one byte a write", testOneByteAWrite},
		{"leave in a request", testLeaveInRequest},
		{"leave in a reply", testLeaveInReply},
		{"leave before a reply", testLeaveBeforeReply},
		{"serial line", testSerialLine},
		{"vsock", testVsock},
		{"late port", testLatePort},
		{"idle", testIdle},
		{"agent killed", testAgentKilled},
		{"port unplugged", testPortUnplugged},
		{"suspend that is not supported", testSuspendUnsupported},
		{"suspend to RAM", testSuspend},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.fn(t, g) })
	}
	if out := shell(t, g, "dmesg | grep -e Oops -e 'Call Trace' -e 'blocked for more'; true"); out != "" {
		t.Errorf("the kernel complains:\n%s", out)
	}
	if n := strings.Count(g.Console(), vm.AgentPort+" ended"); n != g.killed {
		t.Errorf("the agent ended %d times and was killed %d times", n, g.killed)
	}
}

func boot(t *testing.T) *guest {
	t.Helper()
	dir, err := os.MkdirTemp("", "bellhop-guest-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &guest{serial: filepath.Join(dir, "serial"), late: filepath.Join(dir, "late")}

	agent := vm.Build(t, "./cmd/qemu-ga")
	// An agent that is on no port is known by the name of its program.
	named := func(name string) vm.Program {
		path := filepath.Join(dir, name)
		if err := os.Symlink(agent.Path, path); err != nil {
			t.Fatal(err)
		}
		return vm.Program{Path: path}
	}
	g.Guest = vm.Start(t, vm.Config{
		Agents: []vm.Agent{
			{Program: agent, Port: vm.AgentPort},
			{Program: named("on-serial"), Args: []string{"-m", "isa-serial", "-p", "/dev/ttyS1"}},
			{Program: named("on-vsock"), Args: []string{"-m", "vsock-listen", "-p", anyCID + ":" + vsockPort}},
			{Program: named("on-late"), Args: []string{"--retry-path", "-p", "/dev/virtio-ports/" + latePort}},
		},
		Modules:  []string{"button", "vsock_loopback", "fuse", "loop"},
		Programs: map[string]vm.Program{"/bin/vsockcat": vm.Build(t, "./test/guest/testdata/vsockcat")},
		// There is no udev to link ports that appear later to their names.
		Start: `while sleep 0.2; do
			for dir in /sys/class/virtio-ports/*; do
				read -r name <"$dir/name" && ln -sfn "../${dir##*/}" "/dev/virtio-ports/$name"
			done
		done 2>/dev/null &
		`,
		QEMUArgs: []string{
			"-chardev", "socket,id=serial,server=on,wait=off,path=" + g.serial,
			"-device", "isa-serial,chardev=serial,index=1",
			"-chardev", "socket,id=late,server=on,wait=off,path=" + g.late,
		},
	})
	return g
}

// shell runs a script in the guest, through the witness.
func shell(t *testing.T, g *guest, script string, args ...any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := g.Shell(ctx, fmt.Sprintf(script, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// qmp runs a command of QEMU's monitor.
func qmp(t *testing.T, g *guest, command string, args any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := g.QMP(ctx, command, args); err != nil {
		t.Fatal(err)
	}
}

// event waits for an event that QEMU reports.
func event(t *testing.T, g *guest, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := g.WaitEvent(ctx, name); err != nil {
		t.Fatal(err)
	}
}

// connect returns a client of the agent behind a socket of the host's.
func connect(t *testing.T, socket string) *client.Client {
	t.Helper()
	c := client.New(client.Unix(socket))
	c.Timeout, c.SyncTimeout = patience, patience
	t.Cleanup(func() { c.Close() })
	return c
}

// call makes a call that is to succeed.
func call[A, R any](t *testing.T, c *client.Client, cmd qga.Command[A, R], args A) R {
	t.Helper()
	r, err := client.Call(t.Context(), c, cmd, args)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// callFails makes a call that is to fail with the given description.
func callFails[A, R any](t *testing.T, c *client.Client, cmd qga.Command[A, R], args A, want string) {
	t.Helper()
	_, err := client.Call(t.Context(), c, cmd, args)
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%s: got %v, want %s", cmd.Name, err, want)
	}
}

// A host is a client at the level of bytes.
type host struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, socket string) *host {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &host{conn, bufio.NewReader(conn)}
}

func (h *host) send(t *testing.T, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(h, format, args...); err != nil {
		t.Fatal(err)
	}
}

// want reads one line.
func (h *host) want(t *testing.T, want string) {
	t.Helper()
	got, err := h.r.ReadString('\n')
	if err != nil {
		t.Fatalf("got %q and %v, want %q", got, err, want)
	}
	if got != want {
		t.Fatalf("got %.200q, want %q", got, want)
	}
}

// sync gets in step with the agent, whatever was before, and shows that it
// serves. It drops what is for other clients.
func (h *host) sync(t *testing.T) {
	t.Helper()
	id := time.Now().UnixNano()
	h.send(t, "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%d}}\n", id)
	want := fmt.Sprintf("{\"return\": %d}\n", id)
	for {
		if b, err := h.r.ReadSlice(0xff); err != nil && err != bufio.ErrBufferFull {
			t.Fatalf("waiting for the agent: %v after %.200q", err, b)
		}
		// What follows a 0xFF that was not meant for us is not our number.
		if b, err := h.r.Peek(len(want)); err == nil && string(b) == want {
			h.want(t, want)
			return
		}
	}
}

// settles waits until the agent has no more than some kB resident: pages that were
// needed a moment ago may take a while to go.
func settles(t *testing.T, g *guest, limit int) {
	t.Helper()
	pid := agentPID(t, g)
	eventually(t, func() error {
		var rss int
		if _, err := fmt.Sscan(shell(t, g, "sed -n 's/VmRSS: *//p' /proc/%d/status", pid), &rss); err != nil {
			return err
		}
		if rss > limit {
			return fmt.Errorf("the agent has %d kB resident, want no more than %d", rss, limit)
		}
		t.Logf("resident: %d kB", rss)
		return nil
	})
}

// eventually tries until there is no error any more.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatal(err)
}
