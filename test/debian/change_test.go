//go:build linux

package debian

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// qmp runs a command of QEMU's monitor.
func (g *guest) qmp(t *testing.T, command string, args any) json.RawMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := g.QMP(ctx, command, args)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// await runs a script in the guest until it prints what is wanted.
func (g *guest) await(t *testing.T, script, want string) {
	t.Helper()
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if got = g.shell(t, script); got == want {
			return
		}
	}
	t.Fatalf("%s: got %q, want %q", script, got, want)
}

// plugProcessors plugs two processors in. This comes early: QEMU 7.2 aborts when
// it has no room left for the translated code of another processor, of which
// there is less the longer a guest has run.
func (g *guest) plugProcessors(t *testing.T) {
	t.Helper()
	var slots []struct {
		Type  string
		Props map[string]any
		Path  string `json:"qom-path"`
	}
	if err := json.Unmarshal(g.qmp(t, "query-hotpluggable-cpus", nil), &slots); err != nil {
		t.Fatal(err)
	}
	plugged := 0
	for _, s := range slots {
		if s.Path == "" {
			s.Props["driver"], s.Props["id"] = s.Type, fmt.Sprintf("cpu-%d", plugged)
			g.qmp(t, "device_add", s.Props)
			plugged++
		}
	}
	if plugged != 2 {
		t.Fatalf("plugged in %d processors, want 2", plugged)
	}
}

// testVCPUs has each agent turn the processors on and off that were plugged in.
func testVCPUs(t *testing.T, g *guest) {
	const state = "nproc; cat /sys/devices/system/cpu/cpu[1-3]/online | tr '\\n' ' '"
	g.await(t, state, "2\n1 0 0 ")
	g.compare(t, command("guest-get-vcpus", ""))

	g.each(func(name string, agent *host) {
		for _, step := range []struct{ args, reply, state string }{
			{`"vcpus":[{"logical-id":2,"online":true},{"logical-id":3,"online":true}]`, "2", "4\n1 1 1 "},
			{`"vcpus":[{"logical-id":3,"online":true,"can-offline":false}]`, "1", "4\n1 1 1 "},
			// What cannot be done ends it, and what was done before counts.
			{`"vcpus":[{"logical-id":3,"online":false},{"logical-id":0,"online":false},{"logical-id":2,"online":false}]`, "1", "3\n1 1 0 "},
			{`"vcpus":[{"logical-id":1,"online":false},{"logical-id":2,"online":false},{"logical-id":3,"online":false}]`, "3", "1\n0 0 0 "},
			{`"vcpus":[{"logical-id":1,"online":true},{"logical-id":99,"online":true}]`, "1", "2\n1 0 0 "},
			{`"vcpus":[]`, "0", "2\n1 0 0 "},
		} {
			request := command("guest-set-vcpus", step.args)
			if r := agent.ask(t, request); r.String() != step.reply {
				t.Errorf("%s: %s: got %v, want %s", name, request, r, step.reply)
			}
			if got := g.shell(t, state); got != step.state {
				t.Errorf("%s: %s: the processors are %q, want %q", name, request, got, step.state)
			}
			g.compare(t, command("guest-get-vcpus", ""))
		}
	})
}

// testMemoryBlocks plugs memory in, which each agent turns on and off. The
// kernel may not be able to do without a block any more, and says so.
func testMemoryBlocks(t *testing.T, g *guest) {
	const list = `cd /sys/devices/system/memory; for m in memory*; do echo "${m#memory} $(cat $m/state)"; done | sort -n | grep offline; true`
	g.qmp(t, "object-add", map[string]any{"qom-type": "memory-backend-ram", "id": "memory", "size": 256 << 20})
	g.qmp(t, "device_add", map[string]any{"driver": "pc-dimm", "id": "dimm", "memdev": "memory"})
	g.await(t, list, "32 offline\n33 offline\n")
	g.compare(t, command("guest-get-memory-blocks", ""))

	set := func(online bool) string {
		return command("guest-set-memory-blocks",
			fmt.Sprintf(`"mem-blks":[{"phys-index":32,"online":%t},{"phys-index":33,"online":%[1]t}]`, online))
	}
	g.each(func(name string, agent *host) {
		before, offline := g.shell(t, "grep MemTotal /proc/meminfo"), g.shell(t, list)
		r := agent.ask(t, set(true))
		if want := `[{"phys-index":32,"response":"success"},{"phys-index":33,"response":"success"}]`; r.String() != want {
			t.Errorf("%s: got %v, want %s", name, r, want)
		}
		if got := g.shell(t, list); got != "" {
			t.Errorf("%s: these blocks are offline: %s", name, got)
		}
		if after := g.shell(t, "grep MemTotal /proc/meminfo"); after == before && offline != "" {
			t.Errorf("%s: the system has as much memory as before: %s", name, after)
		}
		g.compare(t, command("guest-get-memory-blocks", ""))

		// Twice online is no error.
		if again := agent.ask(t, set(true)); again.String() != r.String() {
			t.Errorf("%s: got %v, want %v", name, again, r)
		}

		r = agent.ask(t, set(false))
		blocks, _ := r.Return.([]any)
		if len(blocks) != 2 {
			t.Fatalf("%s: got %v, want two blocks", name, r)
		}
		offline = ""
		for _, b := range blocks {
			switch b := b.(map[string]any); b["response"] {
			case "success":
				offline += fmt.Sprintf("%v offline\n", b["phys-index"])
			case "operation-failed":
				const ebusy = "16"
				if text(b["error-code"]) != ebusy {
					t.Errorf("%s: got %v, want error %s at the most", name, text(b), ebusy)
				}
			default:
				t.Errorf("%s: got %v", name, text(b))
			}
		}
		if got := g.shell(t, list); got != offline {
			t.Errorf("%s: these blocks are offline: %q, and by its reply %q", name, got, offline)
		}
		g.compare(t, command("guest-get-memory-blocks", ""))

		// For the next one.
		g.shell(t, "cd /sys/devices/system/memory; for m in 32 33; do echo offline >memory$m/state || exit 0; done")
		if got := g.shell(t, list); got != "32 offline\n33 offline\n" {
			t.Logf("%s: the kernel does without these blocks only: %q", name, got)
		}
	})
}

// slack is how many seconds may pass until clocks are read that were set: the guest is
// slow, and what goes wrong is hours off, as a rule.
const slack = 120

// clocks returns what both clocks of the guest show.
func (g *guest) clocks(t *testing.T) (system, rtc int64) {
	t.Helper()
	if _, err := fmt.Sscan(g.shell(t, "date +%s; cat /sys/class/rtc/rtc0/since_epoch"), &system, &rtc); err != nil {
		t.Fatal(err)
	}
	return system, rtc
}

// checkClocks verifies that both are at a time that was set just now.
func (g *guest) checkClocks(t *testing.T, name, what string, want int64) {
	t.Helper()
	var system, rtc int64
	for range 5 { // time may pass between the two
		if system, rtc = g.clocks(t); system == rtc {
			break
		}
	}
	for clock, got := range map[string]int64{"system": system, "hardware": rtc} {
		if got < want || got > want+slack {
			t.Errorf("%s: %s: the %s clock is at %d, want %d or a little later", name, what, clock, got, want)
		}
	}
	if d := system - rtc; d < -1 || d > 1 {
		t.Errorf("%s: %s: the clocks are %d s apart", name, what, d)
	}
	g.compare(t, command("guest-get-time", ""))
}

// setTime has an agent set the clocks, or the one by the other.
func setTime(t *testing.T, name string, agent *host, args string) {
	t.Helper()
	if r := agent.ask(t, command("guest-set-time", args)); r.String() != "{}" {
		t.Errorf("%s: guest-set-time of %q: got %v", name, args, r)
	}
}

// restoreTime has the clocks go on as before when the test is over.
func (g *guest) restoreTime(t *testing.T) {
	begin := time.Now()
	t.Cleanup(func() { g.shell(t, fmt.Sprintf("rm -f /etc/adjtime; date -s @%d; hwclock -w", begin.Unix())) })
}

var (
	summer = time.Date(2031, 7, 1, 12, 30, 15, 500_000_000, time.UTC)
	winter = time.Date(2033, 1, 2, 3, 4, 5, 0, time.UTC)
)

// testTime has each agent set both clocks, and the one by the other.
func testTime(t *testing.T, g *guest) {
	g.restoreTime(t)
	g.each(func(name string, agent *host) {
		for _, when := range []time.Time{summer, winter} {
			setTime(t, name, agent, fmt.Sprintf(`"time":%d`, when.UnixNano()))
			g.checkClocks(t, name, "with an argument", when.Unix())
		}
		g.shell(t, "date -s @1900000000")
		setTime(t, name, agent, "")
		g.checkClocks(t, name, "without", winter.Unix())

		// A hardware clock that goes in local time, as with Windows besides.
		g.shell(t, "printf '0.0 0 0.0\\n0\\nLOCAL\\n' >/etc/adjtime")
		setTime(t, name, agent, fmt.Sprintf(`"time":%d`, summer.UnixNano()))
		_, rtc := g.clocks(t)
		const offset = 2 * 3600 // Berlin in summer
		if d := rtc - offset - summer.Unix(); d < 0 || d > slack {
			t.Errorf("%s: the hardware clock is %d s from the local time", name, d)
		}
		g.shell(t, "date -s @1900000000")
		setTime(t, name, agent, "")
		system, _ := g.clocks(t)
		if d := system - summer.Unix(); d < 0 || d > 2*slack {
			t.Errorf("%s: from the hardware clock in local time: %d s off", name, d)
		}
		g.shell(t, "rm /etc/adjtime")
	})
}

// testTimeAlone has our agent set the clocks where no program can do it in its place.
func testTimeAlone(t *testing.T, g *guest) {
	const name = "without hwclock"
	g.restoreTime(t)
	g.shell(t, "mount --bind /dev/null /usr/sbin/hwclock")
	t.Cleanup(func() { g.shell(t, "umount /usr/sbin/hwclock") })
	if r := g.ours.ask(t, command("guest-exec", `"path":"/sbin/hwclock"`)); r.Error == nil {
		t.Fatalf("hwclock can be run: %v", r)
	}
	for _, when := range []time.Time{summer, winter} {
		setTime(t, name, g.ours, fmt.Sprintf(`"time":%d`, when.UnixNano()))
		g.checkClocks(t, name, "with an argument", when.Unix())
	}
	g.shell(t, "date -s @1900000000")
	setTime(t, name, g.ours, "")
	g.checkClocks(t, name, "without", winter.Unix())
}

// testTimeDrift has each agent set the clocks where /etc/adjtime says how much the
// hardware clock drifts, which is for hwclock to make up for.
func testTimeDrift(t *testing.T, g *guest) {
	g.restoreTime(t)
	const (
		day  = 24 * 3600
		rate = 1000 // seconds a day
	)
	adjtime := func(set int64) {
		g.shell(t, fmt.Sprintf("printf '%d.0 %d 0.0\\n%[2]d\\nUTC\\n' >/etc/adjtime", rate, set))
	}
	g.each(func(name string, agent *host) {
		adjtime(winter.Unix())
		setTime(t, name, agent, fmt.Sprintf(`"time":%d`, summer.UnixNano()))
		g.checkClocks(t, name, "with a drift", summer.Unix())
		// Since when the clock drifts.
		var set int64
		if _, err := fmt.Sscan(g.shell(t, "cut -d' ' -f2 /etc/adjtime"), &set); err != nil {
			t.Fatal(err)
		}
		if d := set - summer.Unix(); d < 0 || d > slack {
			t.Errorf("%s: by /etc/adjtime the hardware clock was set %d s after it was", name, d)
		}

		_, rtc := g.clocks(t)
		adjtime(rtc - 3*day)
		g.shell(t, "date -s @1900000000")
		setTime(t, name, agent, "")
		system, rtc := g.clocks(t)
		if d := system - rtc - 3*rate; d < -slack || d > slack {
			t.Errorf("%s: the clocks are %d s apart, want the %d of the drift", name, system-rtc, 3*rate)
		}
	})
}

// testPassword has each agent change a password, and asks PAM about it.
func testPassword(t *testing.T, g *guest) {
	const hash = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
	shadow := func() string { return g.shell(t, "grep ^alice: /etc/shadow | cut -d: -f2") }
	set := func(agent *host, password string, crypted bool) {
		t.Helper()
		r := agent.ask(t, command("guest-set-user-password", fmt.Sprintf(
			`"username":"alice","password":%q,"crypted":%t`, base64.StdEncoding.EncodeToString([]byte(password)), crypted)))
		if r.String() != "{}" {
			t.Errorf("got %v", r)
		}
	}
	var before string
	g.each(func(name string, agent *host) {
		for _, password := range []string{"secret", "with:colon and space", "päßword ☃"} {
			set(agent, password+name, false)
			if now := shadow(); !strings.HasPrefix(now, "$y$") || now == before {
				t.Errorf("%s: in /etc/shadow is %q", name, now)
			}
			before = shadow()
			if r := g.shell(t, "printf '%s\\0' '"+password+name+"' | unix_chkpwd alice nullok; echo $?"); r != "0\n" {
				t.Errorf("%s: the password is not the one that was set: %s", name, r)
			}
		}
		set(agent, hash, true)
		if now := strings.TrimSpace(shadow()); now != hash {
			t.Errorf("%s: in /etc/shadow is %q, want %q", name, now, hash)
		}
		if got := g.shell(t, "stat -c '%a %U:%G' /etc/shadow"); got != "640 root:shadow\n" {
			t.Errorf("%s: /etc/shadow is %q", name, got)
		}
	})
}

// testPasswordOfNSS has each agent change the password of a user who is in no file of
// /etc. Whether that is possible is for chpasswd and PAM to say, which here refuse.
func testPasswordOfNSS(t *testing.T, g *guest) {
	const (
		hash  = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
		files = "/etc/passwd /etc/shadow /var/lib/extrausers/passwd /var/lib/extrausers/shadow"
	)
	g.shell(t, "mkdir /var/saved; cp -a --parents "+files+" /var/saved")
	for _, tt := range []struct {
		password string
		crypted  bool
	}{{"secret", false}, {hash, true}} {
		request := command("guest-set-user-password", fmt.Sprintf(
			`"username":"nadia","password":%q,"crypted":%t`, base64.StdEncoding.EncodeToString([]byte(tt.password)), tt.crypted))
		var replies, left [2]string
		i := 0
		g.each(func(_ string, agent *host) {
			g.shell(t, "cp -a /var/saved/. /")
			replies[i] = agent.ask(t, request).String()
			// The salt of a password differs each time, and its day may.
			left[i] = g.shell(t, "stat -c '%n %a %U:%G' "+files+`; sed -E 's/^([^:]*:\$y\$)[^:]*:[0-9]+/\1/' `+files)
			i++
		})
		if replies[0] != replies[1] {
			t.Errorf("%s: got %s, want %s", request, replies[1], replies[0])
		}
		if left[0] != left[1] {
			t.Errorf("%s: left behind\n%s, want\n%s", request, left[1], left[0])
		}
	}
	g.shell(t, "cp -a /var/saved/. /; rm -r /var/saved")
}

// A keyStep is a request about somebody's keys, and a script that prepares for it.
type keyStep struct {
	before, command, args string
}

// commonKeySteps are what most hosts do, to a user that has no keys yet.
var commonKeySteps = []keyStep{
	{"", "guest-ssh-get-authorized-keys", ""},
	{"", "guest-ssh-remove-authorized-keys", `"keys":["ssh-rsa AAA a"]`},
	{"", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa AAA a","ssh-rsa BBB b","ssh-rsa AAA a"]`},
	{"", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa BBB b","ssh-rsa CCC c"]`},
	{"", "guest-ssh-get-authorized-keys", ""},
	{"chmod 644 $f; printf '# mine\\n\\ncommand=\"a b\",no-pty ssh-rsa FFF f\\r\\n  ssh-rsa DDD d' >$f", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa EEE e"]`},
	{"", "guest-ssh-get-authorized-keys", ""},
	{"", "guest-ssh-remove-authorized-keys", `"keys":["ssh-rsa DDD d","ssh-rsa EEE"]`},
	{"", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa GGG g"],"reset":true`},
	{"", "guest-ssh-add-authorized-keys", `"keys":[],"reset":true`},
}

// testKeys has each agent do the same to the keys of the same users.
func testKeys(t *testing.T, g *guest) {
	g.shell(t, "useradd -m -d /srv/carol carol; ln -s /srv/carol /home/carol; usermod -d /home/carol carol")
	for _, u := range []struct {
		name, home string
		steps      []keyStep
	}{
		{"carol", "/home/carol", commonKeySteps[:5]}, // whose home is a link
		{"alice", "/home/alice", slices.Concat(commonKeySteps, []keyStep{
			{"mv $d $h/elsewhere; ln -s elsewhere $d", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa HHH h"]`},
			{"rm $d; mkdir -m 755 $d; chown root: $d", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa III i"]`},
			{"rm -rf $d; mkdir $d; ln -s /etc/shadow $f; chown -h alice: $d $f", "guest-ssh-get-authorized-keys", ""},
			{"", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa JJJ j"]`},
			{"rm -rf $d; mkdir /var/away/there; ln -s /var/away/there $d", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa KKK k"]`},
			{"rm -rf $d; echo file >$d", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa LLL l"]`},
			{"", "guest-ssh-remove-authorized-keys", `"keys":["ssh-rsa LLL l"]`},
		})},
		{"root", "/root", slices.Concat(commonKeySteps, []keyStep{ // whom nothing stops
			{"echo ssh-rsa HHH h >$f; chmod 0 $f $d; chown -R alice: $d", "guest-ssh-get-authorized-keys", ""},
			{"", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa III i"]`},
			{"chmod 0 $f; chown alice: $f", "guest-ssh-remove-authorized-keys", `"keys":["ssh-rsa HHH h"]`},
			{"rm -rf $d; mkdir -m 700 /var/away/there; chown alice: /var/away/there; ln -s /var/away/there $d", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa JJJ j"]`},
			{"", "guest-ssh-get-authorized-keys", ""},
			{"rm -rf $d; echo file >$d", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa LLL l"]`},
		})},
		{"nadia", "/srv/nadia", slices.Concat(commonKeySteps, []keyStep{ // who is in a group that only NSS knows of
			{"echo ssh-rsa HHH h >$f; chown root:staff2 $f; chmod 640 $f", "guest-ssh-get-authorized-keys", ""},
			{"", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa III i"]`},
			{"", "guest-ssh-get-authorized-keys", ""},
			{"chown root:staff2 $f; chmod 640 $f", "guest-ssh-remove-authorized-keys", `"keys":["ssh-rsa III i"]`},
			{"rm -rf $d; mkdir -m 770 $d; chown root:staff2 $d", "guest-ssh-add-authorized-keys", `"keys":["ssh-rsa JJJ j"]`},
			{"chown root:alice $f; chmod 640 $f", "guest-ssh-get-authorized-keys", ""},
		})},
	} {
		t.Run(u.name, func(t *testing.T) {
			shadow := g.shell(t, "md5sum /etc/shadow")
			var outcomes [][]string
			g.each(func(name string, agent *host) {
				g.shell(t, "install -d -m 700 /var/away; rm -rf "+u.home+"/.ssh")
				var list []string
				for _, step := range u.steps {
					list = append(list, g.keys(t, agent, u.name, u.home, step))
				}
				outcomes = append(outcomes, list)
				if now := g.shell(t, "rm -rf "+u.home+"/.ssh "+u.home+"/elsewhere /var/away; md5sum /etc/shadow"); now != shadow {
					t.Errorf("%s: /etc/shadow is another file", name)
				}
			})
			for i, step := range u.steps {
				if want, got := outcomes[0][i], outcomes[1][i]; got != want {
					t.Errorf("step %d, %s %s: left\n%s, want\n%s", i+1, step.command, step.args, got, want)
				}
			}
		})
	}
	g.shell(t, "rm /home/carol; userdel carol; rm -r /srv/carol")
}

// keys has an agent do a step, and returns what it replies and leaves behind.
func (g *guest) keys(t *testing.T, agent *host, user, home string, step keyStep) string {
	t.Helper()
	args := fmt.Sprintf(`"username":%q`, user)
	if step.args != "" {
		args += "," + step.args
	}
	// A home may be a link, hence the slash.
	names := "h=" + home + "/; d=$h.ssh; f=$d/authorized_keys; "
	if step.before != "" {
		g.shell(t, names+step.before)
	}
	reply := plain(agent.ask(t, command(step.command, args)))
	return reply + "\n" + found(g.shell(t, names+"cat -A $f 2>/dev/null; echo; echo FILES; find $h /var/away -printf '%p %y %m %U:%G %l\\n'"))
}

// found returns a text as of cat -A and, after it, a list of files, without what
// says nothing: the order of the files, and the text's blank lines and the end of its
// last line, which are where the agents differ.
func found(out string) string {
	text, files, _ := strings.Cut(out, "\nFILES\n")
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "$"); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(append(lines, slices.Sorted(strings.SplitSeq(files, "\n"))...), "\n")
}

// testFreezeList has each agent freeze two of the file systems, and thaw them.
func testFreezeList(t *testing.T, g *guest) {
	const probes = "cd /mnt; ls -d raid/probe luks/probe lvm/probe 2>/dev/null | tr '\\n' ' '"
	g.each(func(name string, agent *host) {
		list := command("guest-fsfreeze-freeze-list", `"mountpoints":["/mnt/raid","/mnt/luks","/mnt/none"]`)
		if r := agent.ask(t, list); r.String() != "2" {
			t.Errorf("%s: %s: got %v, want 2", name, list, r)
		}
		if r := agent.ask(t, command("guest-fsfreeze-status", "")); r.String() != `"frozen"` {
			t.Errorf("%s: the status is %v", name, r)
		}
		g.shell(t, "for d in raid luks lvm; do touch /mnt/$d/probe >/dev/null 2>&1 & done")
		g.await(t, probes, "lvm/probe ")
		time.Sleep(time.Second)
		if got := g.shell(t, probes); got != "lvm/probe " {
			t.Errorf("%s: could write %q, want lvm/probe only", name, got)
		}
		if r := agent.ask(t, command("guest-fsfreeze-thaw", "")); r.String() != "2" {
			t.Errorf("%s: thaw: got %v, want 2", name, r)
		}
		if r := agent.ask(t, command("guest-fsfreeze-status", "")); r.String() != `"thawed"` {
			t.Errorf("%s: the status is %v", name, r)
		}
		g.await(t, probes, "luks/probe lvm/probe raid/probe ")
		g.shell(t, "rm /mnt/*/probe")
	})
}
