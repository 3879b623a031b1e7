//go:build linux

package guest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
	"github.com/bellhop-vm/bellhop/test/vm"
)

// cPort is where QEMU's agent is asked for the same.
const cPort = "org.example.c"

// TestDebian asks the agent for what takes a whole distribution: its file
// systems, and systemd.
func TestDebian(t *testing.T) {
	vm.Need(t, vm.Debian)
	agent := vm.Build(t, "./cmd/qemu-ga")

	t.Run("disks", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		c := vm.Config{
			Image: vm.Debian,
			Agents: []vm.Agent{
				{Program: agent, Port: vm.AgentPort},
				{Program: vm.ImageCAgent, Port: cPort},
			},
		}
		for _, name := range trimmed {
			disk := filepath.Join(dir, name)
			if err := os.WriteFile(disk, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(disk, 320<<20); err != nil {
				t.Fatal(err)
			}
			device := "virtio-blk-pci,drive=" + name + ",serial=" + name
			if name == "untrimmed" {
				device += ",discard=off"
			}
			c.QEMUArgs = append(c.QEMUArgs,
				"-drive", "if=none,format=raw,cache=unsafe,discard=unmap,id="+name+",file="+disk,
				"-device", device)
		}
		g := &guest{Guest: vm.Start(t, c)}
		testTrim(t, g, dir)
		testSuspendRefused(t, g)
		shell(t, g, noteStop)
		testShutdown(t, g, qga.Powerdown)
		checkStopped(t, g)
	})

	t.Run("no programs", func(t *testing.T) {
		t.Parallel()
		g := &guest{Guest: vm.Start(t, vm.Config{
			Image:  vm.Debian,
			Agents: []vm.Agent{{Program: agent, Port: vm.AgentPort}},
		})}
		shell(t, g, noteStop)
		shell(t, g, "cd /usr/sbin && rm poweroff halt reboot shutdown && rm ../bin/systemctl")
		testShutdown(t, g, qga.Powerdown)
		checkStopped(t, g)
	})
}

// noteStop has a service tell when it is stopped, as all are in an orderly
// shutdown.
const noteStop = `systemd-run --quiet --property=RemainAfterExit=yes --property=ExecStop='/bin/sh -c "echo service is stopped >/dev/console"' true`

func checkStopped(t *testing.T, g *guest) {
	t.Helper()
	if !strings.Contains(g.Console(), "service is stopped") {
		t.Error("the services were not stopped")
	}
}

// trimmed are the disks that a guest has for testTrim. Those with a file system's
// name have it.
var trimmed = []string{"ext4", "xfs", "btrfs", "vfat", "untrimmed"}

// testTrim writes files, deletes them and trims the disks, whose files on the
// host have to become smaller. QEMU's agent has to say the same about it.
func testTrim(t *testing.T, g *guest, dir string) {
	const deleted = 48 << 20
	mkfs := map[string]string{"ext4": "mkfs.ext4 -q", "xfs": "mkfs.xfs -q", "btrfs": "mkfs.btrfs -q", "vfat": "mkfs.vfat", "untrimmed": "mkfs.ext4 -q"}
	for _, name := range trimmed {
		shell(t, g, "%s /dev/disk/by-id/virtio-%[2]s >/dev/null && mkdir /srv/%[2]s && mount /dev/disk/by-id/virtio-%[2]s /srv/%[2]s", mkfs[name], name)
	}
	c := connect(t, g.Socket())
	defer c.Close() // for the next client
	qemus := connect(t, g.PortSocket(cPort))

	fill := func() {
		for _, name := range trimmed {
			shell(t, g, "cd /srv/%s && dd if=/dev/zero of=file bs=1M count=%d conv=fsync 2>/dev/null && rm file && sync -f .", name, deleted>>20)
		}
	}
	fill()
	before := make(map[string]int64)
	for _, name := range trimmed {
		before[name] = allocated(t, filepath.Join(dir, name))
	}
	list := call(t, c, qga.FSTrim, qga.FSTrimArgs{}).Paths
	for _, name := range trimmed {
		i := slices.IndexFunc(list, func(p qga.TrimmedPath) bool { return p.Path == "/srv/"+name })
		if i < 0 {
			t.Fatalf("%s is not among %+v", name, list)
		}
		p, freed := list[i], before[name]-allocated(t, filepath.Join(dir, name))
		if name == "untrimmed" {
			if p.Error == nil || *p.Error != "trim not supported" {
				t.Errorf("%s: got %s", name, text(t, p))
			}
			continue
		}
		if p.Error != nil || p.Trimmed == nil || *p.Trimmed < deleted {
			t.Errorf("%s: got %s, want at least %d bytes trimmed", name, text(t, p), deleted)
		}
		if freed < deleted*9/10 {
			t.Errorf("%s: its disk gave back %d bytes of %d", name, freed, deleted)
		}
	}

	// How much is left to be trimmed depends on what was before. The rest must
	// be the same.
	same := func(what string, args qga.FSTrimArgs) {
		t.Helper()
		got, want := outcome(t, c, args), outcome(t, qemus, args)
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", what, got, want)
		}
	}
	same("all", qga.FSTrimArgs{})
	same("minimum", qga.FSTrimArgs{Minimum: new(int64(1 << 20))})
	same("odd minimum", qga.FSTrimArgs{Minimum: new(int64(12345))})
	same("minimum beyond the disks", qga.FSTrimArgs{Minimum: new(int64(1 << 40))})
	same("negative minimum", qga.FSTrimArgs{Minimum: new(int64(-1))})
	shell(t, g, "mount -o remount,ro /srv/ext4 && mount -o remount,ro /srv/xfs && mount -t tmpfs none /srv/vfat && mkdir /srv/again && mount --bind /srv/btrfs /srv/again")
	same("read-only, hidden and bound", qga.FSTrimArgs{})
}

// outcome is what an agent says, but for the number of bytes.
func outcome(t *testing.T, c *client.Client, args qga.FSTrimArgs) string {
	t.Helper()
	list := call(t, c, qga.FSTrim, args).Paths
	for i := range list {
		if list[i].Trimmed != nil {
			list[i].Trimmed = new(int64(0))
		}
	}
	return text(t, list)
}

func text(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// allocated is how many bytes of the host's disk a file takes.
func allocated(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// testSuspendRefused asks for what systemd knows but cannot do without a swap.
// QEMU's agent would not answer at all.
func testSuspendRefused(t *testing.T, g *guest) {
	c := connect(t, g.Socket())
	defer c.Close()
	_, err := client.Call(t.Context(), c, qga.SuspendHybrid, qga.Empty{})
	if err == nil || !strings.Contains(err.Error(), "child process has failed to suspend: ") {
		t.Errorf("got %v, want what systemctl says", err)
	} else {
		t.Log(err)
	}
}
