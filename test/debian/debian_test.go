//go:build linux

// Package debian has QEMU's agent and ours live in the same guest, a Debian
// system with all kinds of disks, file systems and networks, and compares what
// they say of it and what they do to it. A third agent, QEMU's own, sees to
// the guest from the side.
package debian

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// patience bounds every wait for the guest. Its processors are emulated, and
// the machine may be busy with other tests.
const patience = 5 * time.Minute

// cPort is where QEMU's agent is; ours has [vm.AgentPort].
const cPort = "org.example.c"

// sparePorts have no agent at first.
var sparePorts = [2]string{"org.example.spare.0", "org.example.spare.1"}

// A guest is a booted guest with both agents.
type guest struct {
	*vm.Guest
	dir     string // where the host's ends of the spare ports are
	c, ours *host
}

// TestTwoAgents boots one guest for many tests, which run in order.
func TestTwoAgents(t *testing.T) {
	vm.Need(t, vm.Debian)
	g := boot(t)
	for _, tt := range []struct {
		name string
		fn   func(*testing.T, *guest)
	}{
		{"inspect", testInspect},
		{"network kinds", testNetworkKinds},
		{"network-exclude", testNetworkExclude},
		{"removed disk", testRemovedDisk},
		{"mistakes", testMistakes},
		{"no permission", testNoPermission},
		{"processors", testVCPUs},
		{"memory blocks", testMemoryBlocks},
		{"password", testPassword},
		{"password of NSS", testPasswordOfNSS},
		{"keys", testKeys},
		{"time", testTime},
		{"time without hwclock", testTimeAlone},
		{"time with a drift", testTimeDrift},
		{"freeze list", testFreezeList},
		{"users", testUsers},
		{"wrecked system", testWrecked},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.fn(t, g) })
	}
	if out := g.shell(t, "dmesg | grep -e Oops -e 'Call Trace' -e 'blocked for more'; true"); out != "" {
		t.Errorf("the kernel complains:\n%s", out)
	}
}

//go:embed testdata/layout.sh
var layout string

func boot(t *testing.T) *guest {
	t.Helper()
	dir, err := os.MkdirTemp("", "bellhop-debian-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &guest{dir: dir}

	args := []string{
		"-smp", "2,maxcpus=4,sockets=4,cores=1,threads=1",
		"-m", "1024,slots=4,maxmem=3G",
		"-device", "virtio-scsi-pci,id=hba",
		"-device", "ich9-ahci,id=ahci",
		"-device", "qemu-xhci,id=usb",
	}
	for _, device := range []string{
		"virtio-blk-pci,serial=VIRTIO-1",
		"virtio-blk-pci,serial=VIRTIO-2",
		"virtio-blk-pci", // without a serial number
		"scsi-hd,bus=hba.0,scsi-id=3,lun=1,serial=SCSI-1",
		"scsi-hd,bus=hba.0,scsi-id=4,lun=0,serial=SCSI-2",
		"ide-hd,bus=ahci.2,serial=SATA-1",
		"ide-hd,bus=ahci.3,serial=SATA-2",
		"ide-hd,bus=ide.0,unit=1,serial=IDE-1",
		"nvme,serial=NVME-1",
		"usb-storage,bus=usb.0,serial=USB-1",
	} {
		id := fmt.Sprintf("disk%d", len(args))
		file := filepath.Join(dir, id+".img")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 512<<20); err != nil { // xfs wants 300 MB
			t.Fatal(err)
		}
		args = append(args,
			"-drive", "if=none,format=raw,cache=unsafe,discard=unmap,id="+id+",file="+file,
			"-device", device+",drive="+id)
	}
	args = append(args, "-drive", "if=none,media=cdrom,id=cd", "-device", "ide-cd,bus=ide.1,drive=cd")
	for i := range 2 { // both on one hub, and nobody else
		args = append(args,
			"-netdev", fmt.Sprintf("hubport,id=net%d,hubid=0", i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,mac=52:54:00:00:00:0%d,romfile=", i, i+1))
	}
	for i, port := range sparePorts {
		args = append(args,
			"-chardev", fmt.Sprintf("socket,server=on,wait=off,id=spare%d,path=%s", i, filepath.Join(dir, port)),
			"-device", fmt.Sprintf("virtserialport,bus=ports.0,chardev=spare%d,name=%s", i, port))
	}

	g.Guest = vm.Start(t, vm.Config{
		Image: vm.Debian,
		Agents: []vm.Agent{
			{Program: vm.Build(t, "./cmd/qemu-ga"), Port: vm.AgentPort},
			{Program: vm.ImageCAgent, Port: cPort},
		},
		Files: map[string]vm.File{
			"/etc/localtime":          {Data: "/usr/share/zoneinfo/Europe/Berlin", Mode: os.ModeSymlink},
			"/usr/local/sbin/wrecked": {Data: wrecked, Mode: 0o755},
		},
		Programs: map[string]vm.Program{"/usr/local/bin/wreck": vm.Build(t, "./test/debian/testdata/wreck")},
		QEMUArgs: args,
	})
	g.plugProcessors(t)
	begin := time.Now()
	g.shell(t, layout)
	t.Logf("disks and networks laid out in %.1f s", time.Since(begin).Seconds())
	g.c, g.ours = dial(t, g.PortSocket(cPort)), dial(t, g.Socket())
	return g
}

// shell runs a script in the guest, through the witness.
func (g *guest) shell(t *testing.T, script string) string {
	t.Helper()
	// A test's context is over when its cleanups run.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	out, err := g.Shell(ctx, script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// each calls fn for QEMU's agent and for ours, in this order.
func (g *guest) each(fn func(name string, agent *host)) {
	fn("the C agent", g.c)
	fn("our agent", g.ours)
}

// A host is a client at the level of JSON.
type host struct {
	conn net.Conn
	dec  *json.Decoder
}

// dial connects to an agent, and leaves behind what it has for others.
func dial(t *testing.T, socket string) *host {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h := &host{conn, json.NewDecoder(conn)}
	id := time.Now().UnixNano()
	for request := fmt.Sprintf(`{"execute":"guest-sync","arguments":{"id":%d}}`, id); ; request = "" {
		r := h.ask(t, request)
		if n, ok := r.Return.(json.Number); ok && n.String() == fmt.Sprint(id) {
			return h
		}
	}
}

// A reply is what an agent answers.
type reply struct {
	Return any
	Error  *struct{ Class, Desc string }
}

func (r reply) String() string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if r.Error != nil {
		return r.Error.Class + ": " + r.Error.Desc
	}
	_ = enc.Encode(r.Return) // it was JSON
	return strings.TrimSpace(b.String())
}

// returned returns what a command returned, as the type of its result.
func returned[R any](t *testing.T, r reply) R {
	t.Helper()
	var result R
	if r.Error != nil {
		t.Fatal(r)
	}
	if err := json.Unmarshal([]byte(r.String()), &result); err != nil {
		t.Fatal(err)
	}
	return result
}

// ask sends a request, and waits for a reply.
func (h *host) ask(t *testing.T, request string) reply {
	t.Helper()
	r, err := h.try(request)
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	return r
}

func (h *host) try(request string) (reply, error) {
	if err := h.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return reply{}, err
	}
	if _, err := io.WriteString(h.conn, request+"\n"); err != nil {
		return reply{}, err
	}
	var raw json.RawMessage
	if err := h.dec.Decode(&raw); err != nil {
		return reply{}, err
	}
	var r reply
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // times do not fit into a float
	err := dec.Decode(&r)
	return r, err
}

// command returns a request, with arguments if these are not empty.
func command(name, args string) string {
	if args == "" {
		return fmt.Sprintf(`{"execute":%q}`, name)
	}
	return fmt.Sprintf(`{"execute":%q,"arguments":{%s}}`, name, args)
}
