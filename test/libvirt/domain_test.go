//go:build linux

package libvirt

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// start is what a guest does before its agent runs: it gives the disks file
// systems, the network card an address, and ends when it has been forgotten.
const start = `
(sleep 900; poweroff -f) &
for disk in vda1 vdb sda; do
	mke2fs -q /dev/$disk 2>/dev/null
	mkdir -p /mnt/$disk
	mount -t ext4 /dev/$disk /mnt/$disk
done
mkdir -p /mnt/again
mount --bind /mnt/vdb /mnt/again
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra # an address less that comes when it likes
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
route add default gw 10.0.2.2
until ip address show dev eth0 | grep -q fe80; do sleep 0.1; done # the kernel adds it in a moment
`

// modules are the drivers of the domain's devices.
var modules = []string{"virtio_blk", "virtio_scsi", "sd_mod", "virtio_net", "button"}

//go:embed testdata/domain.xml
var domainXML string

var domainTemplate = template.Must(template.New("domain").Parse(domainXML))

// chpasswd stands in for chpasswd(8), which busybox has not. What it stores is
// no hash unless it was given one.
const chpasswd = `#!/bin/sh
IFS=: read -r user password
grep -q "^$user:" /etc/passwd || { echo "chpasswd: no user $user" >&2; exit 1; }
[ "$1" = -e ] || password="hash of $password"
awk -F: -v OFS=: -v user="$user" -v password="$password" '$1 == user { $2 = password } 1' /etc/shadow >/etc/shadow.new
mv /etc/shadow.new /etc/shadow
`

// diskSize is the size of each disk in bytes.
const diskSize = 16 << 20

// A domain is a guest that libvirt runs.
type domain struct {
	*host
	name   string
	events *eventLog
	agents int // how many agents of the guest have been waited for
}

// newDomain starts a guest with an agent in it, and waits until libvirt sees
// the agent.
func (h *host) newDomain(t *testing.T, name string, agent vm.Program) *domain {
	t.Helper()
	boot, err := vm.NewDirectBoot(vm.Config{
		Agents:  []vm.Agent{{Program: agent, Port: vm.AgentPort}},
		Modules: modules,
		Start:   start,
		// What shuts down a guest asks its init, and a shell does not listen.
		// BusyBox's init does, and sleeps before it kills all processes: if it
		// killed the one that asked, the C agent would call that a failure.
		KernelArgs: []string{"rdinit=/bin/init"},
		Files: map[string]vm.File{
			"/etc/inittab":  {Data: "::once:/init\n::shutdown:/bin/sleep 2\n"},
			"/etc/passwd":   {Data: "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"},
			"/etc/group":    {Data: "root:x:0:\nalice:x:1000:\n"},
			"/etc/shadow":   {Data: "root:*:20000:0:99999:7:::\nalice:*:20000:0:99999:7:::\n", Mode: 0o600},
			"/bin/chpasswd": {Data: chpasswd, Mode: 0o755},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := os.ReadFile(boot.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	d := &domain{host: h, name: name}
	values := map[string]any{
		"Name":      name,
		"Kernel":    h.write(t, name+"/kernel", kernel), // the cache may not be libvirt's to read
		"Initramfs": h.write(t, name+"/initramfs", boot.Initramfs),
		"Arguments": boot.Arguments,
		"Console":   filepath.Join(h.dir, name, "console"),
		"Channel":   filepath.Join(h.dir, name, "agent"), // libvirt's own choice may be too long for a socket
		"Disk":      h.write(t, name+"/disk", partitioned()),
		"Whole":     h.write(t, name+"/whole", make([]byte, diskSize)),
		"SCSI":      h.write(t, name+"/scsi", make([]byte, diskSize)),
	}
	var xml bytes.Buffer
	if err := domainTemplate.Execute(&xml, values); err != nil {
		t.Fatal(err)
	}
	h.must(t, "create", h.write(t, name+"/domain.xml", xml.Bytes()))
	t.Cleanup(func() {
		_, _ = h.virsh("destroy", name) // it may have ended by itself
		if t.Failed() {
			console, _ := os.ReadFile(filepath.Join(h.dir, name, "console"))
			t.Logf("console of %s:\n%s", name, console)
		}
	})
	d.events = h.newEventLog(t, name)
	return d
}

// partitioned returns a disk with one partition that takes all of it but the
// first MiB.
func partitioned() []byte {
	const first, linux = 2048, 0x83
	disk := make([]byte, diskSize)
	entry := disk[446:]
	entry[4] = linux
	binary.LittleEndian.PutUint32(entry[8:], first)
	binary.LittleEndian.PutUint32(entry[12:], diskSize/512-first)
	copy(disk[510:], "\x55\xaa")
	return disk
}

// awaitAgent waits until libvirt sees the agent, and the agent answers.
func (d *domain) awaitAgent(t *testing.T) {
	t.Helper()
	eventually(t, d.name+"'s agent", func() bool {
		xml, err := d.virsh("dumpxml", d.name)
		if err != nil || !strings.Contains(xml, "state='connected'") {
			return false
		}
		_, err = d.virsh("qemu-agent-command", d.name, `{"execute":"guest-ping"}`)
		return err == nil
	})
	d.agents = d.events.connections()
}

// agent sends a command to the agent and decodes what it returns.
func (d *domain) agent(t *testing.T, command, arguments string, result any) {
	t.Helper()
	out := d.must(t, "qemu-agent-command", d.name, fmt.Sprintf(`{"execute":%q,"arguments":%s}`, command, arguments))
	reply := struct{ Return any }{result}
	if err := json.Unmarshal([]byte(out), &reply); err != nil {
		t.Fatalf("%s: %s: %v", command, out, err)
	}
}

// shell runs a script in the guest, by way of the agent under test, and
// returns what it printed.
func (d *domain) shell(t *testing.T, script string) string {
	t.Helper()
	quoted, err := json.Marshal(script)
	if err != nil {
		t.Fatal(err)
	}
	var process struct{ PID int }
	d.agent(t, "guest-exec", fmt.Sprintf(`{"path":"sh","arg":["-c",%s],"capture-output":true}`, quoted), &process)
	var status struct {
		Exited  bool
		OutData string `json:"out-data"`
	}
	for !status.Exited {
		time.Sleep(50 * time.Millisecond)
		d.agent(t, "guest-exec-status", fmt.Sprintf(`{"pid":%d}`, process.PID), &status)
	}
	out, err := base64.StdEncoding.DecodeString(status.OutData)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// An eventLog keeps what libvirt reports of a domain by itself.
type eventLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *host) newEventLog(t *testing.T, name string) *eventLog {
	t.Helper()
	l := new(eventLog)
	cmd := h.command("virsh", "-q", "-c", h.uri(), "event", name, "--all", "--loop")
	cmd.Stdout = l
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return l
}

func (l *eventLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count returns how many events of a kind there have been.
func (l *eventLog) count(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), "event '"+kind+"'")
}

// ofAgent returns the states that the agent was in, "connected" and
// "disconnected".
func (l *eventLog) ofAgent() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var states []string
	for line := range strings.Lines(l.text.String()) {
		if _, state, ok := strings.Cut(line, "event 'agent-lifecycle'"); ok {
			_, state, _ = strings.Cut(state, "state: '")
			state, _, _ = strings.Cut(state, "'")
			states = append(states, state)
		}
	}
	return states
}

// connections returns how often an agent has come.
func (l *eventLog) connections() int {
	n := 0
	for _, state := range l.ofAgent() {
		if state == "connected" {
			n++
		}
	}
	return n
}
