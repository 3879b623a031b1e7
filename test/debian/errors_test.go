//go:build linux

package debian

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/test/vm"
)

// mistakes are requests that cannot be fulfilled, and some that nothing is to
// be done for. None of them may change anything.
var mistakes = []string{
	command("guest-get-devices", ""),
	command("guest-get-disks", `"unexpected":1`),
	command("guest-get-vcpus", `"vcpus":[]`),

	command("guest-set-vcpus", ""),
	command("guest-set-vcpus", `"vcpus":{}`),
	command("guest-set-vcpus", `"vcpus":[]`),
	command("guest-set-vcpus", `"vcpus":[0]`),
	command("guest-set-vcpus", `"vcpus":[{}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":0}]`),
	command("guest-set-vcpus", `"vcpus":[{"online":true}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":"0","online":true}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":0,"online":1}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":0,"online":true,"more":1}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":0,"online":true}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":0,"online":false}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":99,"online":true}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":-1,"online":true}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":9223372036854775807,"online":false}]`),

	command("guest-set-memory-blocks", ""),
	command("guest-set-memory-blocks", `"mem-blks":1`),
	command("guest-set-memory-blocks", `"mem-blks":[]`),
	command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":0}]`),
	command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":0,"online":null}]`),
	command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":0,"online":true}]`),
	command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":0,"online":false}]`),
	command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":9999,"online":false},{"phys-index":0,"online":true}]`),
	command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":18446744073709551615,"online":true}]`),

	command("guest-set-time", `"time":"now"`),
	command("guest-set-time", `"time":1.5`),
	command("guest-set-time", `"time":9223372036854775808`),
	command("guest-set-time", `"time":9223372036854775807`),
	command("guest-set-time", `"time":-9223372036854775808`),
	command("guest-set-time", `"time":-1000000000`),
	command("guest-set-time", `"time":3155760000000000000`),
	command("guest-set-time", `"time":3155758200000000000`), // in Berlin 2070 has begun
	command("guest-set-time", `"when":0`),

	command("guest-set-user-password", ""),
	command("guest-set-user-password", `"username":"alice","password":"c2VjcmV0"`),
	command("guest-set-user-password", `"username":"alice","crypted":false`),
	command("guest-set-user-password", `"username":"alice","password":"c2VjcmV0","crypted":"no"`),
	command("guest-set-user-password", `"username":"alice","password":"not base64!","crypted":false`),
	command("guest-set-user-password", `"username":"alice","password":"YQpib2I6Yg==","crypted":false`),
	command("guest-set-user-password", `"username":"alice\nbob","password":"c2VjcmV0","crypted":false`),
	command("guest-set-user-password", `"username":"alice:x","password":"c2VjcmV0","crypted":false`),
	command("guest-set-user-password", `"username":"nobody-of-this-name","password":"c2VjcmV0","crypted":false`),
	command("guest-set-user-password", `"username":"nobody-of-this-name","password":"c2VjcmV0","crypted":true`),
	command("guest-set-user-password", `"username":"","password":"c2VjcmV0","crypted":false`),

	command("guest-ssh-get-authorized-keys", ""),
	command("guest-ssh-get-authorized-keys", `"username":1`),
	command("guest-ssh-get-authorized-keys", `"username":""`),
	command("guest-ssh-get-authorized-keys", `"username":"nobody-of-this-name"`),
	command("guest-ssh-get-authorized-keys", `"username":"alice"`),
	command("guest-ssh-get-authorized-keys", `"username":"homeless"`),
	command("guest-ssh-get-authorized-keys", `"username":"fixed"`),
	command("guest-ssh-add-authorized-keys", `"username":"alice"`),
	command("guest-ssh-add-authorized-keys", `"username":"alice","keys":"ssh-rsa AAA"`),
	command("guest-ssh-add-authorized-keys", `"username":"alice","keys":[1]`),
	command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["# comment"]`),
	command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA\nssh-rsa BBB"]`),
	command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"],"reset":0`),
	command("guest-ssh-add-authorized-keys", `"username":"nobody-of-this-name","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-add-authorized-keys", `"username":"homeless","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-add-authorized-keys", `"username":"fixed","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-remove-authorized-keys", `"username":"alice"`),
	command("guest-ssh-remove-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-remove-authorized-keys", `"username":"nobody-of-this-name","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-remove-authorized-keys", `"username":"homeless","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-remove-authorized-keys", `"username":"fixed","keys":["ssh-ed25519 AAAA fixed"]`),

	command("guest-exec", `"path":"/none"`),
	command("guest-exec", `"path":"/etc/passwd"`),
	command("guest-exec", `"path":"/sys/kernel/notes"`),
	command("guest-exec-status", `"pid":"1"`),
	command("guest-file-open", `"path":"/none"`),
	command("guest-file-open", `"path":"/mnt/readonly/file","mode":"w"`),
	command("guest-file-open", `"path":"/mnt/readonly/home/.ssh/authorized_keys","mode":"r+"`),
	command("guest-file-open", `"path":"/usr/sbin/qemu-ga","mode":"r+"`), // it runs
	command("guest-file-close", `"handle":7`),
	command("guest-file-read", `"handle":7`),
	command("guest-file-write", `"handle":7,"buf-b64":""`),
	command("guest-file-seek", `"handle":7,"offset":0,"whence":0`),
	command("guest-file-flush", `"handle":7`),
}

// testMistakes has both agents answer them, with the same words.
func testMistakes(t *testing.T, g *guest) {
	state := func() string {
		return g.shell(t, "nproc; md5sum /etc/shadow; find /home /mnt/readonly -ls; cat /sys/devices/system/memory/*/state")
	}
	before := state()
	for _, request := range mistakes {
		sameReply(t, request, g.c, g.ours)
	}
	if after := state(); after != before {
		t.Errorf("now there is\n%s, before there was\n%s", after, before)
	}

	// What root cannot do either.
	for _, tt := range []struct{ prepare, undo, request string }{
		{
			"mount --bind /etc /etc && mount -o remount,bind,ro /etc", "umount /etc",
			command("guest-set-user-password", `"username":"alice","password":"c2VjcmV0","crypted":false`),
		},
		{
			"mv /usr/sbin/chpasswd /root", "mv /root/chpasswd /usr/sbin",
			command("guest-set-user-password", `"username":"alice","password":"c2VjcmV0","crypted":false`),
		},
		{"mv /dev/rtc0 /dev/kept", "mv /dev/kept /dev/rtc0", command("guest-set-time", "")},
		{
			"mount -o remount,ro /sys", "mount -o remount,rw /sys",
			command("guest-set-vcpus", `"vcpus":[{"logical-id":1,"online":false}]`),
		},
		{
			"mount -o remount,ro /sys", "mount -o remount,rw /sys",
			command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":1,"online":false}]`),
		},
		{
			"cd /home/alice; mkdir .ssh; echo a key >.ssh/authorized_keys; chown -R alice: .ssh; chattr +i .ssh/authorized_keys",
			"cd /home/alice; chattr -i .ssh/authorized_keys; rm -r .ssh",
			command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
		},
		{
			"cd /home/alice; mkdir .ssh; echo a key >.ssh/authorized_keys; chown -R alice: .ssh; chattr +i .ssh/authorized_keys",
			"cd /home/alice; chattr -i .ssh/authorized_keys; rm -r .ssh",
			command("guest-ssh-remove-authorized-keys", `"username":"alice","keys":["a key"]`),
		},
		{
			"chattr +i /home/alice", "chattr -i /home/alice",
			command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
		},
		{
			"mkdir -p /home/alice/.ssh/authorized_keys; chown -R alice: /home/alice/.ssh", "rm -r /home/alice/.ssh",
			command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"],"reset":true`),
		},
		{
			"ln -s nowhere /home/alice/.ssh", "rm /home/alice/.ssh",
			command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
		},
		{
			"mount -t tmpfs -o nr_inodes=1,mode=777 full /home/alice", "umount /home/alice",
			command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
		},
		{
			"mount -t tmpfs -o nr_inodes=2,mode=777 full /home/alice; mkdir -m 777 /home/alice/.ssh", "umount /home/alice",
			command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
		},
		{
			"truncate -s 4M /run/fat; mkfs.vfat /run/fat; mount -o loop,uid=alice,gid=0 /run/fat /home/alice", "umount /home/alice; rm /run/fat",
			command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
		},
		{
			"truncate -s 4M /run/fat; mkfs.vfat /run/fat; mount -o loop,uid=alice,gid=0 /run/fat /home/alice; mkdir /home/alice/.ssh",
			"umount /home/alice; rm /run/fat",
			command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
		},
		// What there is to trim on a btrfs is so the first time only.
		{"fstrim /mnt/btrfs", ":", command("guest-fstrim", `"minimum":-1`)},
		{"fstrim /mnt/btrfs", ":", command("guest-fstrim", `"minimum":9223372036854775807`)},
		{
			"chattr +i /etc/shadow", "chattr -i /etc/shadow",
			command("guest-set-user-password", `"username":"alice","password":"c2VjcmV0","crypted":true`),
		},
		{
			"touch /root/file; chattr +i /root/file", "chattr -i /root/file; rm /root/file",
			command("guest-file-open", `"path":"/root/file","mode":"a"`),
		},
		{
			"touch /root/file; chattr +a /root/file", "chattr -a /root/file; rm /root/file",
			command("guest-file-open", `"path":"/root/file","mode":"w"`),
		},
		{
			"mount -t tmpfs -o nr_inodes=1 full /media", "umount /media",
			command("guest-file-open", `"path":"/media/file","mode":"w"`),
		},
		{
			"mount -t tmpfs -o noexec noexec /media; cp /bin/true /media", "umount /media",
			command("guest-exec", `"path":"/media/true"`),
		},
	} {
		var want, got string
		g.each(func(_ string, agent *host) {
			g.shell(t, tt.prepare)
			want, got = got, plain(agent.ask(t, tt.request)) // the C agent comes first
			g.shell(t, tt.undo)
		})
		if got != want {
			t.Errorf("%s after %s:\n got %s\nwant %s", tt.request, tt.prepare, got, want)
		}
	}

	// The C agent misses hwclock then, and ours the clock.
	g.shell(t, "mv /dev/rtc0 /dev/kept; mv /usr/sbin/hwclock /root")
	const want = "GenericError: failed to set hardware clock to system time: No such file or directory"
	if r := g.ours.ask(t, command("guest-set-time", "")); r.String() != want {
		t.Errorf("without a hardware clock: got %v, want %s", r, want)
	}
	g.shell(t, "mv /dev/kept /dev/rtc0; mv /root/hwclock /usr/sbin")
}

// forbidden is what somebody who is not root asks for, of every command besides
// the inspections. Most of it only root may do. The last ones would end the guest.
var forbidden = []string{
	command("guest-sync", `"id":1`),

	command("guest-set-time", `"time":1800000000000000000`),
	command("guest-set-time", ""),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":1,"online":false}]`),
	command("guest-set-vcpus", `"vcpus":[{"logical-id":0,"online":false}]`),
	command("guest-set-vcpus", `"vcpus":[]`),
	command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":1,"online":false}]`),
	command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":9999,"online":false},{"phys-index":1,"online":true}]`),

	command("guest-set-user-password", `"username":"alice","password":"c2VjcmV0","crypted":false`),
	command("guest-set-user-password", `"username":"alice","password":"c2VjcmV0","crypted":true`),
	command("guest-set-user-password", `"username":"bob","password":"c2VjcmV0","crypted":false`),
	command("guest-ssh-get-authorized-keys", `"username":"alice"`),
	command("guest-ssh-get-authorized-keys", `"username":"bob"`),
	command("guest-ssh-get-authorized-keys", `"username":"root"`),
	command("guest-ssh-get-authorized-keys", `"username":"nobody-of-this-name"`),
	command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-add-authorized-keys", `"username":"bob","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-add-authorized-keys", `"username":"root","keys":[],"reset":true`),
	command("guest-ssh-remove-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-remove-authorized-keys", `"username":"bob","keys":["ssh-rsa AAA"]`),
	command("guest-ssh-remove-authorized-keys", `"username":"root","keys":["ssh-rsa AAA"]`),

	command("guest-file-open", `"path":"/etc/shadow"`),
	command("guest-file-open", `"path":"/etc/passwd","mode":"a"`),
	command("guest-file-open", `"path":"/etc/passwd","mode":"r+"`),
	command("guest-file-open", `"path":"/etc/new","mode":"w"`),
	command("guest-file-open", `"path":"/root/file"`),
	command("guest-file-open", `"path":"/proc/1/environ"`),
	command("guest-file-open", `"path":"/dev/mem"`),
	command("guest-file-open", `"path":"/etc/passwd"`), // as the handle 1000
	command("guest-file-read", `"handle":1000,"count":4`),
	command("guest-file-write", `"handle":1000,"buf-b64":"YQ=="`),
	command("guest-file-seek", `"handle":1000,"offset":0,"whence":"set"`),
	command("guest-file-flush", `"handle":1000`),
	command("guest-file-close", `"handle":1000`),
	command("guest-exec", `"path":"/etc/shadow"`),
	command("guest-exec", `"path":"/root/program"`),

	command("guest-fsfreeze-thaw", ""),
	command("guest-fsfreeze-freeze", ""),
	command("guest-fsfreeze-freeze-list", `"mountpoints":["/mnt/ext4"]`),
	command("guest-fsfreeze-freeze-list", `"mountpoints":["/mnt/vfat"]`),
	command("guest-fsfreeze-freeze-list", `"mountpoints":["/mnt/raid"]`),
	command("guest-fsfreeze-freeze-list", `"mountpoints":["/none"]`),
	command("guest-fsfreeze-freeze-list", `"mountpoints":[]`),
	command("guest-fsfreeze-freeze-list", ""),
	command("guest-fsfreeze-thaw", ""),
	command("guest-fsfreeze-status", ""),
	command("guest-fstrim", ""),

	command("guest-suspend-ram", ""),
	command("guest-suspend-disk", ""),
	command("guest-suspend-hybrid", ""),
	command("guest-shutdown", ""),
	command("guest-shutdown", `"mode":"powerdown"`),
	command("guest-shutdown", `"mode":"halt"`),
	command("guest-shutdown", `"mode":"reboot"`),
}

// departures are what our agent answers to some of these instead, up to what the
// system says; docs/coverage.md has the reasons.
var departures = map[string]string{
	// It runs as bob, and bob may have his keys.
	command("guest-ssh-get-authorized-keys", `"username":"bob"`): "GenericError: failed to read '/home/bob/.ssh/authorized_keys': " +
		"Failed to open file “/home/bob/.ssh/authorized_keys”: No such file or directory",
	command("guest-ssh-add-authorized-keys", `"username":"bob","keys":["ssh-rsa AAA"]`):    "{}",
	command("guest-ssh-remove-authorized-keys", `"username":"bob","keys":["ssh-rsa AAA"]`): "{}",
	// All are opened before the first is frozen.
	command("guest-fsfreeze-freeze", ""):      "GenericError: failed to open /mnt/raid: Permission denied",
	command("guest-fsfreeze-freeze-list", ""): "GenericError: failed to open /mnt/raid: Permission denied",
	// The C agent has words only for what comes after systemd.
	command("guest-suspend-hybrid", ""): "GenericError: child process has failed to suspend: Call to HybridSleep failed: ",
}

// testNoPermission has agents of both kinds try as somebody who is not root.
func testNoPermission(t *testing.T, g *guest) {
	c := g.spare(t, 0, vm.ImageCAgent.Path, "-p", "User=bob")
	ours := g.spare(t, 1, "/usr/sbin/qemu-ga", "-p", "User=bob")

	for _, i := range returned[qga.AgentInfo](t, c.ask(t, command("guest-info", ""))).SupportedCommands {
		switch {
		case slices.Contains(inspections, i.Name):
			t.Run(i.Name, func(t *testing.T) { compareAgents(t, c, ours, command(i.Name, ""), depart) })
		case slices.Contains([]string{"guest-sync-delimited", "guest-exec-status"}, i.Name):
			// Nobody needs permission for these.
		case !slices.ContainsFunc(forbidden, func(r string) bool { return strings.Contains(r, strconv.Quote(i.Name)) }):
			t.Errorf("nobody asks for %s", i.Name)
		}
	}
	g.shell(t, "chmod 700 /mnt/raid") // not even to be opened
	defer g.shell(t, "chmod 755 /mnt/raid; rm -r /home/bob/.ssh")
	for _, request := range forbidden {
		want, ok := departures[request]
		if !ok {
			sameReply(t, request, c, ours)
			continue
		}
		if r := c.ask(t, request); r.Error == nil {
			t.Errorf("%s: the C agent returns %v", request, r)
		}
		if r := ours.ask(t, request); !strings.HasPrefix(r.String(), want) {
			t.Errorf("%s:\n got %v\nwant %s", request, r, want)
		}
	}
}

// sameReply compares what both answer, on whatever line of their input it was.
func sameReply(t *testing.T, request string, c, ours *host) {
	t.Helper()
	want, got := c.ask(t, request), ours.ask(t, request)
	if plain(got) != plain(want) {
		t.Errorf("%s:\n got %v\nwant %v", request, got, want)
	}
}

// temporary is the end of a temporary file's name.
var temporary = regexp.MustCompile(`authorized_keys\.[^\\"”]+`)

// plain returns a reply without what is different each time.
func plain(r reply) string { return temporary.ReplaceAllString(r.String(), "authorized_keys.X") }

// spare runs an agent on a spare port as long as the test lasts. The arguments
// are systemd-run's.
func (g *guest) spare(t *testing.T, port int, program string, args ...string) *host {
	t.Helper()
	name := sparePorts[port]
	unit := "spare-" + fmt.Sprint(port)
	g.shell(t, fmt.Sprintf("chmod 666 $(readlink -f /dev/virtio-ports/%s); rm -rf /run/%[2]s; mkdir -m 777 /run/%[2]s; "+
		"systemd-run -q --unit=%[2]s %[3]s %[4]s -t /run/%[2]s -m virtio-serial -p /dev/virtio-ports/%[1]s",
		name, unit, strings.Join(args, " "), program))
	t.Cleanup(func() {
		g.shell(t, "systemctl stop "+unit+"; systemctl reset-failed "+unit+" 2>/dev/null; true")
	})
	return dial(t, filepath.Join(g.dir, name))
}
