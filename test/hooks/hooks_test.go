//go:build linux

// Package hooks tests the freeze hooks that are shipped, with the servers that
// they are for, in a Debian guest.
package hooks

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
	"github.com/bellhop-vm/bellhop/test/vm"
)

// patience bounds every wait for the guest: three servers share an emulated
// processor.
const patience = 3 * time.Minute

const hookDir = "/etc/qemu/fsfreeze-hook.d"

// The servers' files are below data, on a disk of their own.
const data = "/srv/data"

// A server is one that has a hook.
type server struct {
	name string
	dir  string // of its files, as installed
	unit string
	// create prepares for what write does, which is to write one number after
	// the other, each time printing that number once the server has said that
	// it has it. count prints how many numbers there are, and the largest.
	create, write, count string
	// exact is whether nothing at all is written while it is frozen. Otherwise
	// something may be that no client has been told of.
	exact bool
}

// numbers prints commands for a server's client.
func numbers(command, client string) string {
	return `i=0; while i=$((i+1)); do echo "` + command + `"; sleep 0.05; done | stdbuf -oL ` + client
}

var servers = []server{
	{
		name: "mysql", dir: "mysql", unit: "mariadb", exact: true,
		create: `mariadb -e 'CREATE DATABASE x; CREATE TABLE x.a (i INT PRIMARY KEY) ENGINE=InnoDB; CREATE TABLE x.b (i INT PRIMARY KEY) ENGINE=MyISAM'`,
		write:  numbers("INSERT INTO b VALUES ($i); INSERT INTO a VALUES ($i); SELECT $i;", "mariadb -BNn x"),
		count:  `mariadb -BN -e 'SELECT COUNT(*), MAX(i) FROM x.a'`,
	},
	{
		name: "postgresql", dir: "postgresql", unit: "postgresql",
		create: `runuser -u postgres -- psql -qc 'CREATE TABLE a (i INT PRIMARY KEY)'`,
		write:  numbers("INSERT INTO a VALUES ($i) RETURNING i;", "runuser -u postgres -- psql -XqAt"),
		count:  `runuser -u postgres -- psql -XAtF ' ' -c 'SELECT COUNT(*), MAX(i) FROM a'`,
	},
	{
		name: "redis", dir: "redis", unit: "redis-server", exact: true,
		create: `true`,
		write:  numbers("RPUSH a $i", "redis-cli"), // which says how many it has now
		count:  `echo $(redis-cli llen a) $(redis-cli lindex a -1)`,
	},
}

// TestServers writes to the servers, freezes them with their hooks and copies
// their disk. The copy must hold all that the servers had said that they have.
func TestServers(t *testing.T) {
	vm.Need(t, vm.Debian)
	dir := t.TempDir()
	c := vm.Config{
		Image:  vm.Debian,
		CPUs:   2, // MySQL and PostgreSQL start together
		Memory: 1024,
		Agents: []vm.Agent{{Program: vm.Build(t, "./cmd/qemu-ga"), Port: vm.AgentPort}},
		Files: map[string]vm.File{"/etc/qemu/qemu-ga.conf": {
			Data: "[bellhop]\nfreeze-hook-dir=" + hookDir + "\nfreeze-hook-limit=150\n",
		}},
	}
	for _, s := range servers {
		hook, err := os.ReadFile(filepath.Join("../../packaging/hooks", s.name))
		if err != nil {
			t.Fatal(err)
		}
		// The processor is too slow for the limits that a real one is given.
		text := strings.Replace(string(hook), "patience=20 ", "patience=120 ", 1)
		if text == string(hook) {
			t.Fatalf("the hook %s has no limit to be raised", s.name)
		}
		c.Files[hookDir+"/"+s.name] = vm.File{Data: text, Mode: 0o755}
	}
	// The original, and where copies of it go.
	for _, name := range []string{"data", "first", "second"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 2<<30); err != nil {
			t.Fatal(err)
		}
		c.QEMUArgs = append(c.QEMUArgs,
			"-drive", "if=none,format=raw,cache=unsafe,id="+name+",file="+file,
			"-device", "virtio-blk-pci,drive="+name+",serial="+name)
	}
	g := &guest{Guest: vm.Start(t, c), t: t, dir: dir}
	g.agent = client.New(client.Unix(g.Socket()))
	g.agent.Timeout, g.agent.SyncTimeout = 2*patience, patience
	t.Cleanup(func() { g.agent.Close() })

	g.shell("mkfs.ext4 -q /dev/disk/by-id/virtio-data && mkdir " + data)
	g.mount("data")
	for _, s := range servers {
		g.shell("cp -a /var/lib/%[1]s %[2]s/ && mount --bind %[2]s/%[1]s /var/lib/%[1]s", s.dir, data)
	}
	// A hook whose server does not run has nothing to do.
	g.freeze()
	g.thaw()

	for _, s := range servers {
		g.shell("systemctl start '%s'", s.unit)
		g.eventually(s.create)
		g.shell("(%s) >/run/%s.numbers 2>&1 </dev/null &", s.write, s.name)
	}

	g.checkRefusal()

	// Redis has only dumps at first, and then appends to a file.
	first := g.snapshot("first")
	g.shell("redis-cli config set appendonly yes")
	g.eventually("redis-cli info persistence | grep -q aof_rewrite_in_progress:0 && redis-cli info persistence | grep -q aof_enabled:1")
	second := g.snapshot("second")

	g.shell("pkill -f '[w]hile i='; true")
	g.stop(servers...)
	g.check("first", first, servers...)
	g.shell("echo appendonly yes >>/etc/redis/redis.conf")
	g.check("second", second, servers[2])
}

// A guest is one with servers.
type guest struct {
	*vm.Guest
	t     *testing.T
	dir   string // of the disks
	agent *client.Client
}

// shell runs a script in the guest.
func (g *guest) shell(script string, args ...any) string {
	g.t.Helper()
	out, err := g.try(script, args...)
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (g *guest) try(script string, args ...any) (string, error) {
	if len(args) > 0 {
		script = fmt.Sprintf(script, args...)
	}
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	out, err := g.Shell(ctx, script)
	if err != nil {
		err = fmt.Errorf("%s: %w", script, err)
	}
	return out, err
}

// eventually runs a script until it succeeds.
func (g *guest) eventually(script string, args ...any) {
	g.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if _, err = g.try(script, args...); err == nil {
			return
		}
	}
	g.t.Fatal(err)
}

func (g *guest) mount(disk string) {
	g.t.Helper()
	g.shell("blockdev --flushbufs /dev/disk/by-id/virtio-%[1]s && mount /dev/disk/by-id/virtio-%[1]s %[2]s", disk, data)
}

// freeze freezes the guest: its root and the servers' disk.
func (g *guest) freeze() {
	g.t.Helper()
	began := time.Now()
	n, err := client.Call(g.t.Context(), g.agent, qga.FSFreezeFreeze, qga.Empty{})
	if err != nil {
		g.t.Fatal(err)
	}
	if n != 2 {
		g.t.Errorf("%d file systems were frozen, want 2", n)
	}
	g.t.Logf("frozen after %.1f s", time.Since(began).Seconds())
}

func (g *guest) thaw() {
	g.t.Helper()
	n, err := client.Call(g.t.Context(), g.agent, qga.FSFreezeThaw, qga.Empty{})
	if err != nil {
		g.t.Fatal(err)
	}
	if n != 2 {
		g.t.Errorf("%d file systems were thawed, want 2", n)
	}
	if out := g.leftBehind(); out != "" {
		g.t.Errorf("the hooks left behind:\n%s", out)
	}
}

// acknowledged returns the last number that each server said it has.
func (g *guest) acknowledged() map[string]int {
	g.t.Helper()
	last := make(map[string]int)
	for _, s := range servers {
		out := g.shell("tail -n 1 /run/%s.numbers", s.name)
		var n int
		if _, err := fmt.Sscan(out, &n); err != nil {
			g.t.Fatalf("%s: the client said %q", s.name, g.shell("tail /run/%s.numbers", s.name))
		}
		last[s.name] = n
	}
	return last
}

// growing waits until every server has some numbers more than it had.
func (g *guest) growing(before map[string]int) {
	g.t.Helper()
	for _, s := range servers {
		g.eventually("[ $(wc -l </run/%s.numbers) -ge %d ]", s.name, before[s.name]+20)
	}
}

// snapshot copies the servers' disk while they are frozen, and returns what
// they had said that they have by then.
func (g *guest) snapshot(disk string) map[string]int {
	g.t.Helper()
	var before map[string]int
	g.growing(before)
	g.freeze()
	// A client may have yet to print what it was told before the freeze.
	frozen := g.acknowledged()
	for range 10 {
		time.Sleep(time.Second)
		again := g.acknowledged()
		if maps.Equal(again, frozen) {
			break
		}
		frozen = again
	}
	copying := exec.CommandContext(g.t.Context(), "cp", "--sparse=always", filepath.Join(g.dir, "data"), filepath.Join(g.dir, disk))
	if out, err := copying.CombinedOutput(); err != nil {
		g.t.Fatalf("%v: %s", err, out)
	}
	for name, n := range g.acknowledged() {
		if n != frozen[name] {
			g.t.Errorf("%s accepted number %d while frozen, after %d", name, n, frozen[name])
		}
	}
	g.thaw()
	g.growing(frozen)
	g.t.Logf("%s: acknowledged %v", disk, frozen)
	return frozen
}

// checkRefusal has the hook for MariaDB fail, as somebody else has a lock. It
// must leave nothing behind, and nobody waiting.
func (g *guest) checkRefusal() {
	g.t.Helper()
	g.shell("(mariadb x -e 'CREATE TABLE c (i INT); LOCK TABLE c WRITE; SELECT SLEEP(10000)') >/dev/null 2>&1 </dev/null &")
	g.eventually("mariadb -e 'SHOW PROCESSLIST' | grep -q 'SELECT SLEEP'")
	out := g.shell("sed 's/^patience=120 /patience=5 /' %s/mysql >/run/mysql; sh /run/mysql freeze; echo \"status $?\"", hookDir)
	if !strings.Contains(out, "no lock: ") || !strings.HasSuffix(out, "status 1") {
		g.t.Errorf("the hook said %q, want that it got no lock", out)
	}
	if out := g.leftBehind(); out != "" {
		g.t.Errorf("a hook that failed left behind:\n%s", out)
	}
	g.growing(g.acknowledged())
	g.shell("mariadb -BN -e 'SHOW PROCESSLIST' | sed -n '/SLEEP/s/\\t.*//p' | while read -r id; do mariadb -e \"KILL $id\"; done")
}

// leftBehind lists what there is of hooks.
func (g *guest) leftBehind() string {
	g.t.Helper()
	return g.shell("ls -d /run/fsfreez?-hook* 2>/dev/null; pgrep -af '[f]sfreeze-hook'; true")
}

// check starts servers on a copy and looks for what they had acknowledged.
func (g *guest) check(disk string, acknowledged map[string]int, list ...server) {
	g.t.Helper()
	g.mount(disk)
	for _, s := range list {
		g.shell("mount --bind %s/%[2]s /var/lib/%[2]s && systemctl start '%[3]s'", data, s.dir, s.unit)
		g.eventually("[ -n \"$(%s)\" ]", s.count)
		var count, largest int
		out := g.shell(s.count)
		if _, err := fmt.Sscan(out, &count, &largest); err != nil {
			g.t.Errorf("%s: %s has %q", disk, s.name, out)
			continue
		}
		want := acknowledged[s.name]
		if count != largest || largest < want || s.exact && largest != want {
			g.t.Errorf("%s: %s has %d numbers up to %d, had acknowledged %d", disk, s.name, count, largest, want)
		}
		if s.name == "mysql" {
			// Tables of this engine know whether they were closed.
			if out := g.shell("mariadb -BN -e 'CHECK TABLE x.b'"); !strings.HasSuffix(out, "\tOK") || strings.Contains(out, "warning") {
				g.t.Errorf("%s: %s", disk, out)
			}
		}
	}
	g.stop(list...)
}

// stop stops servers and gives their files back.
func (g *guest) stop(list ...server) {
	g.t.Helper()
	for _, s := range list {
		g.shell("systemctl stop '%s*' && umount /var/lib/%s", s.unit, s.dir)
	}
	g.shell("umount " + data)
}
