//go:build linux

package debian

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
	command("guest-exec-status", `"pid":"1"`),
	command("guest-file-open", `"path":"/none"`),
	command("guest-file-open", `"path":"/mnt/readonly/file","mode":"w"`),
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
	} {
		g.shell(t, tt.prepare)
		sameReply(t, tt.request+" after "+tt.prepare, g.c, g.ours)
		g.shell(t, tt.undo)
	}

	// The C agent misses hwclock then, and ours the clock.
	g.shell(t, "mv /dev/rtc0 /dev/kept; mv /usr/sbin/hwclock /root")
	const want = "GenericError: failed to set hardware clock to system time: No such file or directory"
	if r := g.ours.ask(t, command("guest-set-time", "")); r.String() != want {
		t.Errorf("without a hardware clock: got %v, want %s", r, want)
	}
	g.shell(t, "mv /dev/kept /dev/rtc0; mv /root/hwclock /usr/sbin")
}

// testNoPermission has agents of both kinds try as somebody who is not root.
func testNoPermission(t *testing.T, g *guest) {
	c := g.spare(t, 0, vm.ImageCAgent.Path, "-p", "User=bob")
	ours := g.spare(t, 1, "/usr/sbin/qemu-ga", "-p", "User=bob")
	for _, request := range []string{
		command("guest-set-vcpus", `"vcpus":[{"logical-id":1,"online":false}]`),
		command("guest-set-memory-blocks", `"mem-blks":[{"phys-index":1,"online":false}]`),
		command("guest-set-time", `"time":1800000000000000000`),
		command("guest-set-time", ""),
		command("guest-set-user-password", `"username":"alice","password":"c2VjcmV0","crypted":false`),
		command("guest-set-user-password", `"username":"alice","password":"c2VjcmV0","crypted":true`),
		command("guest-ssh-get-authorized-keys", `"username":"alice"`),
		command("guest-ssh-add-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
		command("guest-ssh-remove-authorized-keys", `"username":"alice","keys":["ssh-rsa AAA"]`),
		command("guest-file-open", `"path":"/etc/shadow"`),
		command("guest-file-open", `"path":"/etc/passwd","mode":"a"`),
		command("guest-exec", `"path":"/etc/shadow"`),
	} {
		sameReply(t, request, c, ours)
	}
}

// sameReply compares what both answer, on whatever line of their input it was.
func sameReply(t *testing.T, request string, c, ours *host) {
	t.Helper()
	send, _, _ := strings.Cut(request, "} after ")
	if send != request {
		send += "}"
	}
	want, got := c.ask(t, send), ours.ask(t, send)
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
