//go:build linux

package guest

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/test/vm"
)

const ping, pong = `{"execute":"guest-ping"}`, "{\"return\": {}}\n"

func testGarbageFirst(t *testing.T, g *guest) {
	for _, garbage := range []string{
		"\x00\x01\x02\xfe\xff",
		"AT\r\nATZ\r\n\xff",
		`{"execute":"guest-exec","arguments":{"path":"` + "\xff",
		strings.Repeat("[", 5000) + "\xff",
		strings.Repeat("\xff", 3000),
	} {
		h := dial(t, g.Socket())
		h.send(t, "%s", garbage)
		h.sync(t)
		h.send(t, ping)
		h.want(t, pong)
		h.Close()
	}
}

func testTwoInOneWrite(t *testing.T, g *guest) {
	h := dial(t, g.Socket())
	h.sync(t)
	h.send(t, `{"execute":"guest-sync","arguments":{"id":1}}{"execute":"guest-sync","arguments":{"id":2}}`+"\n")
	h.want(t, "{\"return\": 1}\n")
	h.want(t, "{\"return\": 2}\n")

	const many = 5000 // more than a read takes, of either side
	go fmt.Fprint(h, strings.Repeat(ping, many))
	for range many {
		h.want(t, pong)
	}
}

func testOneByteAWrite(t *testing.T, g *guest) {
	h := dial(t, g.Socket())
	h.sync(t)
	for _, b := range []byte(`{"execute": "guest-sync", "arguments": {"id": 77}, "id": "one by one"}`) {
		h.send(t, "%c", b)
		time.Sleep(time.Millisecond)
	}
	h.want(t, "{\"return\": 77, \"id\": \"one by one\"}\n")
}

// testLeaveInRequest leaves in the middle of requests. The next client must
// not finish them: not even one that does not begin with 0xFF, once the guest
// has been told that the host has left.
func testLeaveInRequest(t *testing.T, g *guest) {
	for _, part := range []string{
		`{"execute":"guest-exec","arguments":{"path":"touch","arg":["/tmp/finished`,
		`{"execute":"guest-file-open","arguments":{"path":"/tmp/finished","mode":"w"}`,
		`{"execute":"guest-sync","arguments":{"id":1` + strings.Repeat(" ", 1<<20),
	} {
		h := dial(t, g.Socket())
		h.sync(t)
		h.send(t, "%s", part)
		h.Close()

		h = dial(t, g.Socket())
		h.sync(t)
		h.send(t, `"]}}}`)
		h.sync(t)
		h.Close()
	}
	shell(t, g, "[ ! -e /tmp/finished ]")

	// QEMU tells the guest at most once a second, and the guest may take its time.
	var got string
	for _, pause := range []time.Duration{2 * time.Second, 5 * time.Second, 20 * time.Second} {
		h := dial(t, g.Socket())
		h.sync(t)
		h.send(t, `{"execute":"guest-sync","arguments":{"id":1`)
		h.Close()
		time.Sleep(pause)
		h = dial(t, g.Socket())
		h.send(t, ping)
		var err error
		if got, err = h.r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		h.Close()
		if got == pong {
			return
		}
	}
	t.Errorf("after half a request of another client: got %q, want %q", got, pong)
}

// testLeaveInReply leaves in the middle of a reply that is far larger than all
// buffers on its way.
func testLeaveInReply(t *testing.T, g *guest) {
	const path, size = "/tmp/zeros", 40 << 20
	shell(t, g, "head -c %d /dev/zero >%s", size, path)
	defer shell(t, g, "rm %s", path)

	for _, pause := range []time.Duration{0, 1500 * time.Millisecond} {
		c := connect(t, g.Socket())
		file := call(t, c, qga.FileOpen, qga.FileOpenArgs{Path: path})
		c.Close()

		h := dial(t, g.Socket())
		h.sync(t)
		h.send(t, `{"execute":"guest-file-read","arguments":{"handle":%d,"count":%d}}`, file, size)
		if _, err := io.CopyN(io.Discard, h, 1<<20); err != nil {
			t.Fatal(err)
		}
		h.Close()
		time.Sleep(pause)

		// A handle that is held by a reply to nobody would be in use.
		c = connect(t, g.Socket())
		call(t, c, qga.FileSeek, qga.FileSeekArgs{Handle: file})
		count := int64(1 << 20)
		if r := call(t, c, qga.FileRead, qga.FileReadArgs{Handle: file, Count: &count}); !bytes.Equal(r.Data, make([]byte, count)) {
			t.Errorf("after a pause of %v the next client read %d bytes that are not the file's", pause, len(r.Data))
		}
		call(t, c, qga.FileClose, qga.HandleArgs{Handle: file})
		c.Close()
	}
}

// testLeaveBeforeReply leaves before a reply could be given.
func testLeaveBeforeReply(t *testing.T, g *guest) {
	h := dial(t, g.Socket())
	h.sync(t)
	for range 50 {
		h.send(t, `{"execute":"guest-info"}`)
	}
	h.Close()
	h = dial(t, g.Socket())
	h.sync(t)
	h.send(t, ping)
	h.want(t, pong)
}

func testSerialLine(t *testing.T, g *guest) {
	h := dial(t, g.serial)
	h.sync(t)
	// Every byte that a terminal would do something about.
	h.send(t, "{\"execute\":\"guest-sync\",\"arguments\":{\"id\":1},\"id\":\"\xc3\xa9\x7f\"}\r\x03\x04\x11\x13\x1a\x1c\xff\r\n")
	h.want(t, "{\"return\": 1, \"id\": \"\\u00E9\\u007F\"}\n")
	h.sync(t)
	h.Close()

	c := connect(t, g.serial)
	data := bytes.Repeat([]byte("\x00\x03\x11\x13\x1a\r\n\xff"), 8<<10)
	if err := c.WriteFile(t.Context(), "/tmp/serial", data); err != nil {
		t.Fatal(err)
	}
	got, err := c.ReadFile(t.Context(), "/tmp/serial")
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back that differ, or %v", len(got), err)
	}
	shell(t, g, "rm /tmp/serial")
}

func testVsock(t *testing.T, g *guest) {
	if out := shell(t, g, "grep -c ^vsock_loopback /proc/modules; true"); out != "1\n" {
		t.Fatal("the guest has no vsock_loopback")
	}
	const cat = "vsockcat " + localCID + " " + vsockPort
	if got := shell(t, g, "printf '%%s' '%s' | %s", ping, cat); got != pong {
		t.Errorf("got %q, want %q", got, pong)
	}
	// Another client does not wait for one that just stays.
	got := shell(t, g, "mkfifo /tmp/hold; %[2]s <>/tmp/hold >/dev/null 2>&1 & sleep 0.2; printf '%%s' '%[1]s%[1]s' | %[2]s; kill $!", ping, cat)
	if got != pong+pong {
		t.Errorf("beside another client: got %q, want two %q", got, pong)
	}
}

// plug plugs a port in, and unplug pulls it out.
func plug(t *testing.T, g *guest, id, chardev, name string) {
	t.Helper()
	qmp(t, g, "device_add", map[string]any{
		"driver": "virtserialport", "bus": "ports.0", "id": id, "chardev": chardev, "name": name,
	})
}

func unplug(t *testing.T, g *guest, id, name string) {
	t.Helper()
	qmp(t, g, "device_del", map[string]any{"id": id})
	event(t, g, "DEVICE_DELETED")
	shell(t, g, "while grep -qsx %s /sys/class/virtio-ports/*/name; do sleep 0.02; done", name)
}

// testLatePort lets the port appear long after its agent, which was told to
// wait for it, pulls it out and plugs it in again.
func testLatePort(t *testing.T, g *guest) {
	pid := shell(t, g, "cat /run/vm/on-late.pid")
	for range 2 {
		plug(t, g, "late", "late", latePort)
		h := dial(t, g.late)
		h.sync(t)
		h.send(t, ping)
		h.want(t, pong)
		h.Close()
		unplug(t, g, "late", latePort)
	}
	if now := shell(t, g, "cat /run/vm/on-late.pid"); now != pid {
		t.Errorf("the agent was process %s and is %s", pid, now)
	}
}

// A usage is what a process has used of the guest's processor.
type usage struct {
	ticks    int // hundredths of a second
	switches int // how often a thread was given the processor
}

// idle returns what the agents use in five seconds, by their names.
func idle(t *testing.T, g *guest) map[string]usage {
	t.Helper()
	const measure = `for f in /run/vm/*.pid; do
		name=${f##*/} pid=$(cat $f)
		set -- $(sed 's/.*) //' /proc/$pid/stat)
		echo ${name%%.pid} $((${12} + ${13})) $(cat /proc/$pid/task/*/status | awk '/ctxt/ { n += $2 } END { print n }')
	done; `
	out := shell(t, g, measure+"sleep 5; "+measure)
	used := make(map[string]usage)
	for line := range strings.Lines(out) {
		var name string
		var u usage
		if _, err := fmt.Sscan(line, &name, &u.ticks, &u.switches); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if before, ok := used[name]; ok {
			u.ticks -= before.ticks
			u.switches -= before.switches
		}
		used[name] = u
	}
	return used
}

// testIdle measures agents that have nothing to do: on a port whose host end is
// closed, and on one whose host is silent. QEMU's own agent wakes up ten times a
// second in the first case.
func testIdle(t *testing.T, g *guest) {
	limits := map[string]usage{
		// A collection of the runtime's, and the like; QEMU's agent: 50.
		vm.AgentPort: {1, 20},
		"on-serial":  {1, 20},
		"on-vsock":   {1, 20},
		// It looks for its port once a second, with several threads.
		"on-late": {3, 150},
	}
	// An agent that does not rest does so each time, and what else befalls a
	// machine comes and goes: of up to three measurements the least counts.
	check := func(when string) {
		t.Helper()
		least := make(map[string]usage)
		restless := func() (names []string) {
			for name, limit := range limits {
				if u := least[name]; u.ticks > limit.ticks || u.switches > limit.switches {
					names = append(names, name)
				}
			}
			return names
		}
		for range 3 {
			time.Sleep(3 * time.Second) // what is done when quiet is done by then
			used := idle(t, g)
			for name := range limits {
				u, ok := used[name]
				if !ok {
					t.Fatalf("%s, there is no agent %s", when, name)
				}
				t.Logf("%s, %s: %+v", when, name, u)
				if l, ok := least[name]; ok {
					u.ticks, u.switches = min(u.ticks, l.ticks), min(u.switches, l.switches)
				}
				least[name] = u
			}
			if restless() == nil {
				return
			}
		}
		for _, name := range restless() {
			t.Errorf("%s, the agent %s used at least %d ticks of the processor and got it at least %d times in 5 s",
				when, name, least[name].ticks, least[name].switches)
		}
	}
	check("no host")
	for _, socket := range []string{g.Socket(), g.serial} {
		dial(t, socket).sync(t)
	}
	check("silent host")
}

// testAgentKilled kills the agent while a host is connected.
func testAgentKilled(t *testing.T, g *guest) {
	h := dial(t, g.Socket())
	h.sync(t)
	c := `{"execute":"guest-file-open","arguments":{"path":"/etc/passwd"}}`
	handle := func() (n int) {
		t.Helper()
		h.send(t, "%s", c)
		line, err := h.r.ReadString('\n')
		if err == nil {
			_, err = fmt.Sscanf(line, "{\"return\": %d}", &n)
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return n
	}
	first := handle()
	before := agentPID(t, g)
	shell(t, g, "kill -9 %d; while [ -e /proc/%[1]d ]; do sleep 0.02; done", before)
	g.killed++
	h.sync(t)
	if after := agentPID(t, g); after == before {
		t.Errorf("process %d answers, which was killed", before)
	}
	h.send(t, `{"execute":"guest-file-close","arguments":{"handle":%d}}`, first)
	h.want(t, fmt.Sprintf("{\"error\": {\"class\": \"GenericError\", \"desc\": \"handle '%d' has not been found\"}}\n", first))
	if second := handle(); second != first+1 {
		t.Errorf("handle %d, want the one after %d, which the agent before gave out", second, first)
	}
	h.send(t, `{"execute":"guest-file-close","arguments":{"handle":%d}}`, first+1)
	h.want(t, pong)
}

// testPortUnplugged pulls the agent's port out and plugs it in again, while
// the agent waits, and while it is in the middle of a reply. It was not told
// to wait for its port, but it does.
func testPortUnplugged(t *testing.T, g *guest) {
	pid := agentPID(t, g)
	const path, size = "/tmp/zeros", 40 << 20
	shell(t, g, "head -c %d /dev/zero >%s", size, path)
	defer shell(t, g, "rm %s", path)

	id := "port0" // as vm calls it
	for i, busy := range []bool{false, true, false} {
		h := dial(t, g.Socket())
		h.sync(t)
		if busy {
			h.send(t, `{"execute":"guest-file-open","arguments":{"path":"%s"}}`, path)
			var file int
			if _, err := fmt.Fscanf(h.r, "{\"return\": %d}\n", &file); err != nil {
				t.Fatal(err)
			}
			h.send(t, `{"execute":"guest-file-read","arguments":{"handle":%d,"count":%d}}`, file, size)
			if _, err := h.r.Peek(1); err != nil {
				t.Fatal(err)
			}
		}
		unplug(t, g, id, vm.AgentPort)
		h.Close()
		id = fmt.Sprint("again", i)
		plug(t, g, id, "port0", vm.AgentPort)
		h = dial(t, g.Socket())
		h.sync(t)
		h.Close()
	}
	if now := agentPID(t, g); now != pid {
		t.Errorf("the agent was process %d and is %d", pid, now)
	}
	if out := shell(t, g, "ls -l /proc/%d/fd | grep -c vport", pid); out != "1\n" {
		t.Errorf("the agent has %s ports open, want one", out)
	}
}
