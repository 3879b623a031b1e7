//go:build linux

package debian

import (
	_ "embed"
	"strings"
	"testing"
	"time"
)

//go:embed testdata/wrecked.sh
var wrecked string

// arguments are those of the commands that need some.
var arguments = map[string]string{
	"guest-sync":                       `"id":1`,
	"guest-file-open":                  `"path":"/proc/stat"`,
	"guest-file-close":                 `"handle":1`,
	"guest-file-read":                  `"handle":1`,
	"guest-file-write":                 `"handle":1,"buf-b64":""`,
	"guest-file-seek":                  `"handle":1,"offset":0,"whence":0`,
	"guest-file-flush":                 `"handle":1`,
	"guest-exec":                       `"path":"true"`,
	"guest-exec-status":                `"pid":1`,
	"guest-set-vcpus":                  `"vcpus":[{"logical-id":1,"online":false}]`,
	"guest-set-memory-blocks":          `"mem-blks":[{"phys-index":1,"online":true}]`,
	"guest-set-user-password":          `"username":"alice","password":"c2VjcmV0","crypted":false`,
	"guest-ssh-get-authorized-keys":    `"username":"alice"`,
	"guest-ssh-add-authorized-keys":    `"username":"alice","keys":["ssh-rsa AAA"]`,
	"guest-ssh-remove-authorized-keys": `"username":"alice","keys":["ssh-rsa AAA"]`,
}

// testWrecked has our agent run each command where /proc, /sys, the database of
// udev, utmp, the sessions of logind and the time zones are not what they should
// be: it may say so, or say less; but it serves on.
func testWrecked(t *testing.T, g *guest) {
	var commands []string
	info, _ := g.ours.ask(t, command("guest-info", "")).Return.(map[string]any)
	list, _ := info["supported_commands"].([]any)
	for _, c := range list {
		c, _ := c.(map[string]any)
		name, _ := c["name"].(string)
		switch {
		case c["success-response"] == false: // there would be no guest to answer
		case strings.HasPrefix(name, "guest-fsfreeze-f"): // nor if its disks were frozen
		case strings.HasSuffix(name, "-delimited"): // the mark before the reply is no JSON
		default:
			commands = append(commands, name)
		}
	}
	if len(commands) < 30 {
		t.Fatalf("only %d commands in %v", len(commands), list)
	}
	for _, how := range []string{"missing", "unreadable", "waiting", "truncated", "mangled", "garbage"} {
		t.Run(how, func(t *testing.T) {
			g.shell(t, "touch /run/utmp; mkdir -p /run/wreck && mount -t tmpfs -o nr_inodes=0,size=512m wreck /run/wreck && wreck "+how+" /run/wreck")
			t.Cleanup(func() { g.shell(t, "umount /run/wreck; rm -f /run/utmp") })
			var args []string
			if how == "unreadable" {
				args = append(args, "-p", "'CapabilityBoundingSet=~CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH'")
			}
			agent := g.spare(t, 0, "/usr/local/sbin/wrecked /run/wreck /usr/sbin/qemu-ga", args...)
			pid := g.shell(t, "systemctl show -P MainPID spare-0")
			for _, name := range commands {
				if how == "waiting" && name == "guest-set-user-password" {
					continue // chpasswd waits for the time zone, until it is ended after a minute
				}
				begin := time.Now()
				r, err := agent.try(command(name, arguments[name]))
				switch {
				case err != nil:
					t.Fatalf("%s: %v\n%s", name, err, g.shell(t, "grep -h . /proc/"+strings.TrimSpace(pid)+"/task/*/wchan /proc/"+strings.TrimSpace(pid)+"/task/*/syscall; systemctl kill -s QUIT spare-0; sleep 1; journalctl -u spare-0 -o cat --no-pager"))
				case r.Error != nil && (r.Error.Desc == "" || strings.Contains(r.Error.Desc, "internal error")):
					t.Errorf("%s: %v", name, r)
				case r.Error == nil && r.Return == nil:
					t.Errorf("%s: no answer", name)
				}
				t.Logf("%s: %.300v (%.1f s)", name, r, time.Since(begin).Seconds())
			}
			if now := g.shell(t, "systemctl show -P MainPID spare-0"); now != pid {
				t.Errorf("the agent was process %s and is %s", pid, now)
			}
		})
	}
}
