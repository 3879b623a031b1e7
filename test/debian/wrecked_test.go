//go:build linux

package debian

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
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

// unspoilt are the commands that need none of the files: they have the kernel to ask.
var unspoilt = []string{
	"guest-ping", "guest-info", "guest-get-time", "guest-network-get-interfaces", "guest-get-load", "guest-get-host-name", "guest-fsfreeze-status",
}

// testWrecked has our agent run each command where /proc, /sys, the database of
// udev, utmp, the sessions of logind and the time zones are not what they should
// be: it may say so, or say less, but nothing that is not so; and it serves on.
func testWrecked(t *testing.T, g *guest) {
	var commands, silent []string
	info, _ := g.ours.ask(t, command("guest-info", "")).Return.(map[string]any)
	list, _ := info["supported_commands"].([]any)
	for _, c := range list {
		c, _ := c.(map[string]any)
		name, _ := c["name"].(string)
		switch {
		case strings.HasPrefix(name, "guest-fsfreeze-f"): // there would be no disks to go on with
		case strings.HasSuffix(name, "-delimited"): // the mark before the reply is no JSON
		case c["success-response"] == false:
			silent = append(silent, name)
		default:
			commands = append(commands, name)
		}
	}
	if len(commands) < 30 || len(silent) != 4 {
		t.Fatalf("only %d and %d commands in %v", len(commands), len(silent), list)
	}
	g.login(t, "alice", "tty8")
	for _, how := range []string{"missing", "unreadable", "waiting", "truncated", "mangled", "garbage"} {
		t.Run(how, func(t *testing.T) {
			g.utmp(t, utmpRecord(bootTime, "reboot", 1690000000), utmpRecord(userProcess, "alice", 1700000000),
				utmpRecord(userProcess, "bob", 1700000100), utmpRecord(userProcess, "alice", 1700000200))
			truth := make(map[string]reply)
			for _, name := range inspections {
				truth[name] = g.ours.ask(t, command(name, ""))
			}
			g.shell(t, "mkdir -p /run/wreck && mount -t tmpfs -o nr_inodes=0,size=512m wreck /run/wreck && wreck "+how+" /run/wreck; "+recorder)
			t.Cleanup(func() { g.shell(t, "umount /run/wreck") })
			if how == "missing" { // nothing can be mounted in its place
				g.shell(t, "rm /run/utmp")
			}
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
				case r.Error != nil && slices.Contains(unspoilt, name):
					t.Errorf("%s: %v, which is in no file", name, r)
				case r.Error == nil && r.Return == nil:
					t.Errorf("%s: no answer", name)
				}
				t.Logf("%s: %.300v (%.1f s)", name, r, time.Since(begin).Seconds())
				for _, o := range odd(r.String()) {
					t.Errorf("%s: %s", name, o)
				}
				if before, ok := truth[name]; ok && r.Error == nil {
					var lies []string
					switch {
					case name == "guest-get-timezone":
						lies = wrongZone(t, how, agent, before, r)
					case name == "guest-get-time":
						lies = wrongTime(before, r)
					case how != "mangled": // a file that says something else in good order is believed
						lies = untrue("", before.Return, r.Return, g.ours.ask(t, command(name, "")).Return)
					}
					for _, l := range lies {
						t.Errorf("%s: %s", name, l)
					}
				}
			}
			for _, name := range silent {
				// What was done says nothing, so that the next one is the first to answer.
				r, err := agent.try(command(name, "") + "\n" + command("guest-get-host-name", ""))
				if err != nil || r.Error != nil {
					t.Fatalf("%s: %v, %v", name, r, err)
				}
			}
			if did := g.shell(t, "cat /run/wreck/asked"); did != recorded {
				t.Errorf("for %v, ran\n%swant\n%s", silent, did, recorded)
			}
			if now := g.shell(t, "systemctl show -P MainPID spare-0"); now != pid {
				t.Errorf("the agent was process %s and is %s", pid, now)
			}
		})
	}
}

// recorder makes what takes the place of systemctl, and of the programs to shut down,
// which all are that: it notes what it would have done.
const recorder = `printf '#!/bin/sh\necho "${0##*/} $*" >>/run/wreck/asked\n' >/run/wreck/recorder; chmod 755 /run/wreck/recorder`

// recorded is what it notes of the commands that do not answer.
const recorded = `poweroff 
systemctl status systemd-hibernate
systemctl hibernate
systemctl status systemd-suspend
systemctl suspend
systemctl status systemd-hybrid-sleep
systemctl hybrid-sleep
`

// fleeting are numbers that go up and down.
var fleeting = []string{
	"idle", "iowait", "ios-pgr", "used-bytes", "load1m", "load5m", "load15m", "refcnt", "use",
}

// untrue lists what was said that was not said before. Numbers may have grown to
// what they are after, and anything may be absent.
func untrue(path string, before, said, after any) []string {
	switch said := said.(type) {
	case map[string]any:
		b, ok := before.(map[string]any)
		a, _ := after.(map[string]any)
		if !ok {
			break
		}
		var lies []string
		for _, name := range slices.Sorted(maps.Keys(said)) {
			if nowhere(said, name) {
				continue
			}
			was, known := b[name]
			if !known {
				lies = append(lies, fmt.Sprintf("%s.%s: %s, of which nothing was said", path, name, text(said[name])))
				continue
			}
			lies = append(lies, untrue(path+"."+name, was, said[name], a[name])...)
		}
		return lies
	case []any:
		b, ok := before.([]any)
		a, _ := after.([]any)
		if !ok {
			break
		}
		was, is := byKey(b), byKey(a)
		var lies []string
		if len(said) > len(b) {
			lies = append(lies, fmt.Sprintf("%s: %d, and there are %d", path, len(said), len(b)))
		}
		for _, e := range said {
			known := func(key string) bool { return len(untrue(path, was[key], e, is[key])) == 0 }
			if !slices.ContainsFunc(slices.Collect(maps.Keys(was)), known) {
				lies = append(lies, fmt.Sprintf("%s: %s, which is none of %s", path, text(e), text(b)))
			}
		}
		return lies
	case json.Number:
		b, ok := before.(json.Number)
		n, err := said.Float64()
		switch {
		case !ok || err != nil:
		case slices.Contains(fleeting, path[strings.LastIndexByte(path, '.')+1:]):
			if n >= 0 && n < 1<<40 {
				return nil
			}
		case between(b, said, after):
			return nil
		}
	default:
		if said == before {
			return nil
		}
	}
	return []string{fmt.Sprintf("%s: %s, and is %s", path, text(said), text(before))}
}

// nowhere tells whether a member of a disk's address stands for what is not known, as
// members do that cannot be absent.
func nowhere(address map[string]any, name string) bool {
	switch name {
	case "pci-controller":
		return text(address[name]) == `{"bus":-1,"domain":-1,"function":-1,"slot":-1}`
	case "bus-type", "bus", "target", "unit":
		return address["bus-type"] == "unknown"
	}
	return false
}

// odd lists what is no text in a reply.
func odd(reply string) []string {
	var list []string
	for _, r := range reply {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			list = append(list, fmt.Sprintf("%q in the reply", r))
		}
	}
	if strings.Contains(reply, `\u00`) {
		list = append(list, "control characters in the reply")
	}
	return list
}

// wrongTime compares times that are not far from each other, as the commands set the
// clock.
func wrongTime(before, said reply) []string {
	b, _ := before.Return.(json.Number)
	s, _ := said.Return.(json.Number)
	was, errWas := b.Int64()
	is, errIs := s.Int64()
	if errWas != nil || errIs != nil || time.Duration(is-was).Abs() > time.Hour {
		return []string{fmt.Sprintf("%v, and was %v", said, before)}
	}
	return nil
}

// wrongZone compares a time zone with what the programs of the system go by, which is
// UTC where the C library cannot make anything of the file.
func wrongZone(t *testing.T, how string, agent *host, before, said reply) []string {
	want := []string{text(before.Return), `{"offset":0,"zone":"UTC"}`}
	if how != "waiting" { // which date would do, too
		date := strings.Fields(execute(t, agent, "date", "+%s %::z %Z"))
		if len(date) != 3 {
			t.Fatalf("date says %q", date)
		}
		offset, err := time.Parse("-07:00:00", date[1])
		if err != nil {
			t.Fatal(err)
		}
		_, seconds := offset.Zone()
		want = []string{text(map[string]any{"offset": seconds, "zone": date[2]})}
	}
	if !slices.Contains(want, text(said.Return)) {
		return []string{fmt.Sprintf("%v, want %q", said, want)}
	}
	return nil
}

// execute has an agent run a program and returns its output.
func execute(t *testing.T, agent *host, program string, args ...string) string {
	t.Helper()
	r := agent.ask(t, command("guest-exec", fmt.Sprintf(`"path":%q,"arg":%s,"capture-output":true`, program, text(args))))
	started := returned[struct{ PID int64 }](t, r)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		status := returned[struct {
			Exited bool
			Out    []byte `json:"out-data"`
		}](t, agent.ask(t, command("guest-exec-status", fmt.Sprintf(`"pid":%d`, started.PID))))
		if status.Exited {
			return string(status.Out)
		}
	}
	t.Fatalf("%s does not end", program)
	return ""
}
