//go:build linux

package libvirt

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/test/vm"
)

const (
	oneKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOneOneOneOneOneOneOneOneOneOneOneOneOneOne one@example"
	otherKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOtherOtherOtherOtherOtherOtherOtherOther other@example"
	hash     = "$6$salt$notahashofanything"

	frozen = `{"return":"frozen"}`
	thawed = `{"return":"thawed"}`
)

// A step is something that is done to both guests, one after the other.
type step struct {
	// args are virsh's, with %s for the guest's name.
	args []string
	// fails says that virsh must fail; else it must not.
	fails bool
	// want is what virsh is to say, if it is known.
	want string
	// what returns what counts of that when the two are compared, if not all.
	what func(string) string
	// settle, if any, waits until the guest has done what it was told.
	settle func(*domain, *testing.T)
	// after is a script that prints in the guest what has become of it.
	after string
}

// virsh returns a step that runs a command of virsh on the guest.
func virsh(command string, args ...string) step {
	return step{args: append([]string{command, "%s"}, args...)}
}

// call returns a step that sends a command to the agent.
func call(command, arguments string) step {
	return virsh("qemu-agent-command", fmt.Sprintf(`{"execute":%q,"arguments":%s}`, command, arguments))
}

// script returns a step that runs a script in the guest.
func script(after string) step { return step{after: after} }

func (s step) failing() step                             { s.fails = true; return s }
func (s step) saying(want string) step                   { s.want = want; return s }
func (s step) counting(what func(string) string) step    { s.what = what; return s }
func (s step) settling(f func(*domain, *testing.T)) step { s.settle = f; return s }
func (s step) leaving(after string) step                 { s.after = after; return s }

// TestVirsh has libvirt do what it can do with an agent.
func TestVirsh(t *testing.T) {
	h := newHost(t)
	begin := time.Now()
	c, ours := h.newDomain(t, "with-c", vm.CAgent(11)), h.newDomain(t, "with-ours", vm.Build(t, "./cmd/qemu-ga"))
	c.awaitAgent(t)
	ours.awaitAgent(t)
	t.Logf("guests with their agents were up after %.1f s", time.Since(begin).Seconds())

	compare := func(s step) {
		name := "script"
		if len(s.args) > 0 {
			name = s.args[0]
		}
		t.Run(name, func(t *testing.T) {
			want, got := s.do(t, c), s.do(t, ours)
			if got != want {
				t.Errorf("%q: got\n%s\nwant\n%s", s.args, got, want)
			}
		})
	}
	for _, s := range steps(h, t) {
		compare(s)
	}
	if got, want := ours.events.ofAgent(), c.events.ofAgent(); !slices.Equal(got, want) {
		t.Errorf("libvirt saw our agent %q, want %q", got, want)
	}
	// Whether libvirt still sees an agent go is up to how soon its guest has gone.
	compare(virsh("shutdown", "--mode", "agent").settling(awaitEnd))
}

func steps(h *host, t *testing.T) []step {
	one := h.write(t, "one.pub", []byte(oneKey+"\n"))
	other := h.write(t, "other.pub", []byte(otherKey+"\n"))
	const (
		online = "cat /sys/devices/system/cpu/online"
		shadow = "grep ^alice: /etc/shadow"
		sshDir = "cd /home/alice/.ssh; stat -c '%n %a %u %g' . *"
	)
	return []step{
		virsh("qemu-agent-command", `{"execute":"guest-ping"}`).saying(`{"return":{}}`),
		virsh("qemu-agent-command", "--pretty", "--timeout", "60", `{"execute":"guest-get-host-name"}`),
		virsh("qemu-agent-command", "--block", `{"execute":"guest-ping","id":"mine"}`),
		virsh("qemu-agent-command", `{"execute":`).failing(),
		call("guest-ping", `{"x":1}`).failing(),
		call("guest-no-such-command", "{}").failing(),
		call("guest-file-open", `{"path":"/none"}`).failing(),

		virsh("guestinfo").counting(disksByName),
		virsh("guestinfo", "--user"),
		virsh("guestinfo", "--os"),
		virsh("guestinfo", "--timezone"),
		virsh("guestinfo", "--hostname"),
		virsh("guestinfo", "--filesystem").counting(withoutSerials),
		virsh("guestinfo", "--disk").counting(disksByName),
		virsh("guestinfo", "--interface"),
		virsh("domfsinfo").counting(table).saying("Mountpoint Name Type Target\n/mnt/vda1 vda1 ext4 vda\n/mnt/vdb vdb ext4 vdb\n/mnt/sda sda ext4 sdb"),
		virsh("domifaddr", "--source", "agent"),
		virsh("domifaddr", "--source", "agent", "--full", "--interface", "eth0"),
		virsh("domhostname", "--source", "agent").saying("guest"),

		virsh("domtime").counting(near(time.Now)),
		virsh("domtime", "--pretty").counting(near(time.Now)),
		virsh("domtime", "--time", "1700000000"),
		virsh("domtime").counting(near(func() time.Time { return time.Unix(1700000000, 0) })),
		virsh("domtime", "--now"),
		virsh("domtime").counting(near(time.Now)),
		script("date -s '2020-01-01 00:00:00'"),
		virsh("domtime", "--sync"),
		virsh("domtime").counting(near(time.Now)),

		virsh("guestvcpus").counting(table).saying("vcpus : 0-1\nonline : 0-1\nofflinable : 1"),
		virsh("guestvcpus", "--cpulist", "1", "--disable").leaving(online),
		virsh("guestvcpus"),
		virsh("guestvcpus", "--cpulist", "1", "--disable"),
		virsh("guestvcpus", "--cpulist", "0-1", "--enable").leaving(online),
		virsh("guestvcpus", "--cpulist", "0", "--disable").failing(),
		virsh("guestvcpus", "--cpulist", "7", "--enable").failing(),
		virsh("setvcpus", "--guest", "1").leaving(online),
		virsh("setvcpus", "--guest", "2").leaving(online),
		virsh("setvcpus", "--guest", "3").failing(),

		virsh("set-user-password", "alice", "secret").leaving(shadow),
		virsh("set-user-password", "alice", hash, "--encrypted").leaving(shadow),
		virsh("set-user-password", "stranger", "secret").failing(),

		virsh("get-user-sshkeys", "alice").failing(),
		virsh("get-user-sshkeys", "stranger").failing(),
		virsh("set-user-sshkeys", "alice", "--file", one).failing(), // she has no home yet
		script("mkdir -p /home/alice; chown 1000:1000 /home/alice"),
		virsh("set-user-sshkeys", "alice", "--file", one).leaving(sshDir),
		virsh("get-user-sshkeys", "alice").saying(oneKey),
		virsh("set-user-sshkeys", "alice", "--file", other),
		virsh("get-user-sshkeys", "alice"),
		virsh("set-user-sshkeys", "alice", "--file", one, "--remove"),
		virsh("get-user-sshkeys", "alice").saying(otherKey),
		virsh("set-user-sshkeys", "alice", "--file", one, "--reset").leaving(sshDir),
		virsh("get-user-sshkeys", "alice").saying(oneKey),
		virsh("set-user-sshkeys", "alice", "--reset").leaving(sshDir),
		virsh("get-user-sshkeys", "alice"),

		virsh("guest-agent-timeout", "--timeout", "60"),
		virsh("domhostname", "--source", "agent").saying("guest"),

		virsh("domfsfreeze").saying("Froze 3 filesystem(s)"),
		call("guest-fsfreeze-status", "{}").saying(frozen),
		virsh("domfsfreeze").failing(),
		virsh("domfsinfo").failing(),
		virsh("domtime").failing(),
		virsh("qemu-agent-command", `{"execute":"guest-ping"}`),
		virsh("domfsthaw").saying("Thawed 3 filesystem(s)"),
		call("guest-fsfreeze-status", "{}").saying(thawed),
		virsh("domfsthaw").saying("Thawed 0 filesystem(s)"),
		virsh("domfsfreeze", "--mountpoint", "/mnt/vdb").saying("Froze 1 filesystem(s)"),
		virsh("domfsthaw").saying("Thawed 1 filesystem(s)"),
		virsh("snapshot-create-as", "--disk-only", "--quiesce", "--no-metadata", "--name", "overlay"),
		call("guest-fsfreeze-status", "{}").saying(thawed),

		virsh("domfstrim"),
		virsh("domfstrim", "--minimum", "65536"),
		// How much was there to trim is the file system's secret.
		call("guest-fstrim", "{}").counting(func(out string) string { return digits.ReplaceAllString(out, "0") }),

		virsh("dompmsuspend", "mem").settling(awaitState("pmsuspended")),
		virsh("dompmwakeup").settling((*domain).awaitAgent),
		virsh("domhostname", "--source", "agent").saying("guest"),

		script("(sleep 1; kill $(cat /run/vm/" + vm.AgentPort + ".pid)) >/dev/null 2>&1 &"),
		{settle: awaitAnotherAgent},
		virsh("domhostname", "--source", "agent").saying("guest"),

		virsh("reboot", "--mode", "agent").settling(awaitReboot),
		virsh("domhostname", "--source", "agent").saying("guest"),
	}
}

// do returns what virsh said and what has become of the guest.
func (s step) do(t *testing.T, d *domain) string {
	t.Helper()
	var report strings.Builder
	if len(s.args) > 0 {
		args := slices.Clone(s.args)
		args[slices.Index(args, "%s")] = d.name
		begin := time.Now()
		out, err := d.virsh(args...)
		if (err != nil) != s.fails {
			t.Errorf("%q: %v", args, err)
		}
		t.Logf("%q (%d ms): %v\n%s", args, time.Since(begin).Milliseconds(), err, out)
		if s.what != nil {
			out = s.what(out)
		}
		if s.want != "" && out != s.want {
			t.Errorf("%q: got\n%s\nwant\n%s", args, out, s.want)
		}
		fmt.Fprintf(&report, "%s\n%v\n", strings.ReplaceAll(out, d.name, "GUEST"), err)
	}
	if s.settle != nil {
		s.settle(d, t)
	}
	if s.after != "" {
		report.WriteString(d.shell(t, s.after))
	}
	return report.String()
}

// awaitState returns a function that waits until a guest is in a state.
func awaitState(want string) func(*domain, *testing.T) {
	return func(d *domain, t *testing.T) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s to be %q", d.name, want), func() bool {
			state, err := d.virsh("domstate", d.name)
			return err == nil && state == want
		})
	}
}

// awaitAnotherAgent waits until the agent has gone and one has come that
// nobody has waited for yet.
func awaitAnotherAgent(d *domain, t *testing.T) {
	t.Helper()
	eventually(t, "another agent of "+d.name, func() bool { return d.events.connections() > d.agents })
	d.awaitAgent(t)
}

// awaitReboot waits until the guest has begun anew and has its agent again.
func awaitReboot(d *domain, t *testing.T) {
	t.Helper()
	eventually(t, d.name+" to reboot", func() bool { return d.events.count("reboot") > 0 })
	awaitAnotherAgent(d, t)
}

// awaitEnd waits until the guest, which libvirt knows only while it runs, has
// ended.
func awaitEnd(d *domain, t *testing.T) {
	t.Helper()
	eventually(t, d.name+" to end", func() bool {
		names, err := d.virsh("list", "--all", "--name")
		return err == nil && !slices.Contains(strings.Fields(names), d.name)
	})
}

// near returns a function that tells whether a time that virsh prints is that
// of a clock, give or take what a busy machine takes.
func near(clock func() time.Time) func(string) string {
	return func(out string) string {
		text := strings.TrimPrefix(out, "Time: ")
		at, err := time.Parse("2006-01-02 15:04:05", text)
		if err != nil {
			var seconds int64
			if _, err := fmt.Sscan(text, &seconds); err != nil {
				return out
			}
			at = time.Unix(seconds, 0)
		}
		if at.Sub(clock()).Abs() > patience {
			return out
		}
		return "right"
	}
}

var (
	digits = regexp.MustCompile(`\d+`)
	spaces = regexp.MustCompile(` +`)
	rule   = regexp.MustCompile(`(?m)^-+\n`)
	// serials are known to the C agent only from udev, which the guests have not.
	serials = regexp.MustCompile(`(?m)^.*\.serial +: .*\n?`)
	diskKey = regexp.MustCompile(`^disk\.\d+\.`)
)

// table returns a table without its form.
func table(out string) string {
	out = spaces.ReplaceAllString(rule.ReplaceAllString(out, ""), " ")
	return strings.ReplaceAll(out, "\n ", "\n")
}

func withoutSerials(out string) string { return serials.ReplaceAllString(out, "") }

// disksByName returns guestinfo's lines without serial numbers, and what it
// tells of disks in order of their names: the C agent has the directory's order.
func disksByName(out string) string {
	var lines []string
	disks := map[string][]string{}
	name := ""
	for line := range strings.Lines(withoutSerials(out)) {
		line = strings.TrimSpace(line)
		key := diskKey.FindString(line)
		if key == "" {
			lines = append(lines, line)
			continue
		}
		line = strings.TrimPrefix(line, key)
		if strings.HasPrefix(line, "name ") {
			name = line
		}
		disks[name] = append(disks[name], line)
	}
	for _, name := range slices.Sorted(maps.Keys(disks)) {
		lines = append(lines, disks[name]...)
	}
	return strings.Join(lines, "\n")
}
