package power

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/qga"
)

// A machine notes what is done to it.
type machine struct {
	root root.Dir
	// programs are those that there are, and how they end: nil is success.
	programs map[string]error
	// allowed is whether reboot(2) is; failing what it says.
	allowed bool
	failing error
	slept   time.Duration
	// sleeper is the program that sends the machine to sleep.
	sleeper string

	notes []string
}

func (m *machine) note(format string, args ...any) {
	m.notes = append(m.notes, fmt.Sprintf(format, args...))
}

func (m *machine) run(ctx context.Context, c run.Command) ([]byte, error) {
	line := strings.Join(c.Args, " ")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err, ok := m.programs[line]
	if !ok {
		err, ok = m.programs[c.Args[0]]
	}
	if !ok {
		return nil, &run.StartError{Action: c.Action, Program: c.Args[0], Err: unix.ENOENT}
	}
	m.note("%s", line)
	if line == m.sleeper {
		m.slept += time.Minute
	}
	if e, ok := err.(*run.ExitError); ok {
		err = &run.ExitError{Action: c.Action, Code: e.Code, Output: e.Output}
	}
	return nil, err
}

func (m *machine) Signal(pid int, s unix.Signal) error {
	m.note("signal %d to %d", s, pid)
	return nil
}
func (m *machine) MayReboot() bool { return m.allowed }
func (m *machine) Sync()           { m.note("sync") }

func (m *machine) Reboot(command uint32) error {
	m.note("reboot %#x", command)
	return m.failing
}
func (m *machine) Slept() time.Duration { return m.slept }

func (m *machine) power() *power {
	return &power{
		Config: Config{
			Root: m.root, Run: m.run, Kernel: m,
			Audit: func(string, ...any) {},
			Log:   func(logging.Level, string, ...any) {},
		},
		sleep: func(time.Duration) { m.note("wait") },
	}
}

// with adds a file, an executable one or a link.
func (m *machine) with(t *testing.T, name, data string) {
	t.Helper()
	path := m.root.Path(name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if target, ok := strings.CutPrefix(data, "-> "); ok {
		err = errors.Join(err, os.Symlink(target, path))
	} else {
		err = errors.Join(err, os.WriteFile(path, []byte(data), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func exit(code int, output string) error { return &run.ExitError{Code: code, Output: []byte(output)} }

func check(t *testing.T, what string, m *machine, err error, wantErr string, want ...string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != wantErr {
		t.Errorf("%s: error %q, want %q", what, got, wantErr)
	}
	if got, want := strings.Join(m.notes, "; "), strings.Join(want, "; "); got != want {
		t.Errorf("%s: did %q, want %q", what, got, want)
	}
}

const noShutdown = "child process has failed to shutdown: failed to exec '/sbin/shutdown': No such file or directory\n"

func TestShutdown(t *testing.T) {
	const line = "-h -P +0 hypervisor initiated shutdown"
	allModes := []qga.ShutdownMode{qga.Powerdown, qga.Halt, qga.Reboot}
	for _, test := range []struct {
		name  string
		files map[string]string
		m     machine
		err   string
		want  [][]string // for each mode
	}{
		{
			name:  "programs",
			files: map[string]string{"/sbin/poweroff": "", "/sbin/halt": "", "/sbin/reboot": ""},
			m:     machine{programs: map[string]error{"/sbin/poweroff": nil, "/sbin/halt": nil, "/sbin/reboot": nil}, allowed: true},
			want:  [][]string{{"/sbin/poweroff"}, {"/sbin/halt"}, {"/sbin/reboot"}},
		},
		{
			name: "shutdown",
			m:    machine{programs: map[string]error{"/sbin/shutdown": nil}, allowed: true},
			want: [][]string{
				{"/sbin/shutdown " + line},
				{"/sbin/shutdown -h -H +0 hypervisor initiated shutdown"},
				{"/sbin/shutdown -h -r +0 hypervisor initiated shutdown"},
			},
		},
		{
			name:  "one that says no",
			files: map[string]string{"/sbin/poweroff": "", "/run/systemd/system/x": ""},
			m:     machine{programs: map[string]error{"/sbin/poweroff": exit(1, "inhibited\n"), "/sbin/shutdown": nil}, allowed: true},
			err:   "child process has failed to shutdown: inhibited\n",
			want:  [][]string{{"/sbin/poweroff"}},
		},
		{
			name:  "one whose interpreter is missing",
			files: map[string]string{"/sbin/poweroff": ""},
			m:     machine{programs: map[string]error{"/sbin/shutdown": nil}, allowed: true},
			want:  [][]string{{"/sbin/shutdown " + line}},
		},
		{
			name: "elsewhere",
			m:    machine{programs: map[string]error{"poweroff": nil, "shutdown": nil}, allowed: true},
			want: [][]string{{"poweroff"}},
		},
		{
			name: "shutdown elsewhere",
			m:    machine{programs: map[string]error{"shutdown": nil}, allowed: true},
			want: [][]string{{"shutdown " + line}},
		},
		{
			name:  "systemctl",
			files: map[string]string{"/run/systemd/system/x": "", "/proc/1/exe": "-> /usr/lib/systemd/systemd"},
			m:     machine{programs: map[string]error{"systemctl": nil}, allowed: true},
			want:  [][]string{{"systemctl poweroff"}, {"systemctl halt"}, {"systemctl reboot"}},
		},
		{
			name:  "systemd",
			files: map[string]string{"/run/systemd/system/x": "", "/proc/1/exe": "-> /usr/lib/systemd/systemd (deleted)"},
			m:     machine{allowed: true},
			want:  [][]string{{"signal 38 to 1"}, {"signal 37 to 1"}, {"signal 39 to 1"}},
		},
		{
			name:  "BusyBox",
			files: map[string]string{"/proc/1/exe": "-> /bin/busybox", "/proc/1/cmdline": "/sbin/init      \x00"},
			m:     machine{allowed: true},
			want:  [][]string{{"signal 12 to 1"}, {"signal 10 to 1"}, {"signal 15 to 1"}},
		},
		{
			name: "no memory for a program",
			// This is known of the programs that are tried, and of no other.
			m: machine{programs: map[string]error{
				"/sbin/shutdown": fmt.Errorf("failed to create child process: %w", unix.ENOMEM),
			}, allowed: true},
			err:  "failed to create child process: cannot allocate memory",
			want: [][]string{{"/sbin/shutdown " + line}},
		},
		{
			name:  "no memory, but systemd",
			files: map[string]string{"/proc/1/exe": "-> /usr/lib/systemd/systemd"},
			m: machine{programs: map[string]error{
				"/sbin/shutdown": fmt.Errorf("failed to create child process: %w", unix.EAGAIN),
			}, allowed: true},
			want: [][]string{{"/sbin/shutdown " + line, "signal 38 to 1"}},
		},
		{
			name:  "another init",
			files: map[string]string{"/proc/1/exe": "-> /bin/dash"},
			m:     machine{allowed: true},
			want: [][]string{
				{"signal 15 to -1", "wait", "sync", "reboot 0x4321fedc"},
				{"signal 15 to -1", "wait", "sync", "reboot 0xcdef0123"},
				{"signal 15 to -1", "wait", "sync", "reboot 0x1234567"},
			},
		},
		{
			name:  "shell of BusyBox",
			files: map[string]string{"/proc/1/exe": "-> /bin/busybox", "/proc/1/cmdline": "/bin/sh\x00/init\x00"},
			m:     machine{allowed: true},
			want:  [][]string{{"signal 15 to -1", "wait", "sync", "reboot 0x4321fedc"}},
		},
		{
			name: "container", // of a host's /run
			files: map[string]string{
				"/run/systemd/system/x": "", "/proc/1/exe": "-> /usr/bin/qemu-ga",
			},
			err:  noShutdown,
			want: [][]string{{}},
		},
		{
			name: "reboot fails",
			m:    machine{allowed: true, failing: unix.EINVAL},
			err:  noShutdown,
			want: [][]string{{"signal 15 to -1", "wait", "sync", "reboot 0x4321fedc"}},
		},
	} {
		for i, want := range test.want {
			m := test.m
			m.root = root.Dir(t.TempDir())
			for name, data := range test.files {
				m.with(t, name, data)
			}
			// That the client has left already makes no difference.
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := m.power().shutdown(ctx, qga.ShutdownArgs{Mode: &allModes[i]})
			check(t, test.name+" "+string(allModes[i]), &m, err, test.err, want...)
		}
	}
}

func TestShutdownMode(t *testing.T) {
	m := machine{root: root.Dir(t.TempDir()), programs: map[string]error{"/sbin/shutdown": nil}}
	p := m.power()
	var audited []string
	p.Audit = func(format string, args ...any) { audited = append(audited, fmt.Sprintf(format, args...)) }
	_, err := p.shutdown(t.Context(), qga.ShutdownArgs{})
	check(t, "default", &m, err, "", "/sbin/shutdown -h -P +0 hypervisor initiated shutdown")
	m.notes = nil
	for _, mode := range []qga.ShutdownMode{"", "suspend", "Reboot"} {
		_, err := p.shutdown(t.Context(), qga.ShutdownArgs{Mode: &mode})
		check(t, string(mode), &m, err, "mode is invalid (valid values are: halt|powerdown|reboot")
	}
	want := "guest-shutdown called, mode: (null); guest-shutdown called, mode: ; " +
		"guest-shutdown called, mode: suspend; guest-shutdown called, mode: Reboot"
	if got := strings.Join(audited, "; "); got != want {
		t.Errorf("audited %q, want %q", got, want)
	}
}

func TestSuspend(t *testing.T) {
	const (
		systemd     = "systemctl status systemd-suspend"
		pm          = "pm-is-supported --suspend"
		unsupported = "the requested suspend mode is not supported by the guest"
	)
	for _, test := range []struct {
		name  string
		kind  sleep
		m     machine
		state string
		err   string
		want  []string
		wrote string // to /sys/power/state
	}{
		{
			name: "systemd to disk", kind: toDisk,
			m:    machine{programs: map[string]error{"systemctl": nil}},
			want: []string{"systemctl status systemd-hibernate", "systemctl hibernate"},
		},
		{
			name: "systemd to both", kind: toBoth,
			m:    machine{programs: map[string]error{"systemctl": nil}},
			want: []string{"systemctl status systemd-hybrid-sleep", "systemctl hybrid-sleep"},
		},
		{
			name: "systemd at rest", kind: toRAM,
			m:    machine{programs: map[string]error{systemd: exit(3, ""), "systemctl suspend": nil}},
			want: []string{systemd, "systemctl suspend"},
		},
		{
			name: "systemd without it, pm-utils", kind: toRAM,
			m:    machine{programs: map[string]error{systemd: exit(4, ""), pm: nil, "pm-suspend": nil}},
			want: []string{systemd, pm, "pm-suspend"},
		},
		{
			name: "pm-utils to disk", kind: toDisk,
			m:    machine{programs: map[string]error{"pm-is-supported": nil, "pm-hibernate": nil}},
			want: []string{"pm-is-supported --hibernate", "pm-hibernate"},
		},
		{
			name: "pm-utils to both", kind: toBoth,
			m:    machine{programs: map[string]error{"pm-is-supported": nil, "pm-suspend-hybrid": nil}},
			want: []string{"pm-is-supported --suspend-hybrid", "pm-suspend-hybrid"},
		},
		{name: "kernel", kind: toRAM, state: "freeze mem disk\n", wrote: "mem"},
		{name: "kernel to disk", kind: toDisk, state: "freeze mem disk\n", wrote: "disk"},
		{name: "kernel cannot", kind: toDisk, state: "freeze mem\n", err: unsupported},
		{name: "kernel to both", kind: toBoth, state: "freeze mem disk\n", err: unsupported},
		{name: "nothing", kind: toRAM, err: unsupported},
		{
			name: "both fail, kernel", kind: toRAM, state: "mem\n", wrote: "mem",
			m: machine{programs: map[string]error{
				systemd: exit(3, ""), "systemctl suspend": exit(1, "no\n"), pm: nil, "pm-suspend": exit(1, "nor I\n"),
			}},
			want: []string{systemd, "systemctl suspend", pm, "pm-suspend"},
		},
		{
			name: "all fail", kind: toRAM,
			m: machine{programs: map[string]error{
				systemd: exit(3, ""), "systemctl suspend": exit(1, "no\n"), pm: nil, "pm-suspend": exit(1, "nor I\n"),
			}},
			err:  "child process has failed to suspend: no\n",
			want: []string{systemd, "systemctl suspend", pm, "pm-suspend"},
		},
		{
			name: "slept all the same", kind: toRAM, state: "mem\n",
			m: machine{
				programs: map[string]error{systemd: exit(3, ""), "systemctl suspend": exit(1, "no\n"), pm: nil},
				sleeper:  "systemctl suspend",
			},
			want: []string{systemd, "systemctl suspend"},
		},
		{
			name: "too slow", kind: toRAM, state: "mem\n",
			m: machine{programs: map[string]error{
				systemd: exit(3, ""), "systemctl suspend": context.DeadlineExceeded, pm: nil,
			}},
			err:  "context deadline exceeded",
			want: []string{systemd, "systemctl suspend"},
		},
		{
			name: "probe that is killed", kind: toRAM,
			m:    machine{programs: map[string]error{systemd: exit(-1, "")}},
			err:  unsupported,
			want: []string{systemd},
		},
	} {
		m := test.m
		m.root = root.Dir(t.TempDir())
		if test.state != "" {
			m.with(t, stateFile, test.state)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		check(t, test.name, &m, m.power().suspend(ctx, test.kind), test.err, test.want...)
		if test.state == "" {
			continue
		}
		data, err := m.root.ReadFile(stateFile)
		if err != nil {
			t.Fatal(err)
		}
		want := test.wrote + test.state[len(test.wrote):] // this file is none of the kernel's
		if string(data) != want {
			t.Errorf("%s: the state is now %q, want %q", test.name, data, want)
		}
	}
}

func TestSuspendStateFails(t *testing.T) {
	// A file that can be read, but not even root may write to.
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("freeze mem disk\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
		t.Skip(err)
	}
	m := machine{root: root.Dir(t.TempDir())}
	m.with(t, stateFile, fmt.Sprintf("-> /proc/self/fd/%d", fd))
	check(t, "to RAM", &m, m.power().suspend(t.Context(), toRAM),
		"suspend: cannot write to '/sys/power/state': Operation not permitted")
}

func TestSystem(t *testing.T) {
	// What can be asked without consequences.
	slept := (System{}).Slept()
	for range 3 { // time may pass between the readings of two clocks
		slept = max(slept, System{}.Slept())
	}
	if slept < -time.Second {
		t.Errorf("slept for %v", slept)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	var caps uint64
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if _, err := fmt.Sscanf(strings.TrimSpace(hex), "%x", &caps); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, want := (System{}).MayReboot(), caps&(1<<unix.CAP_SYS_BOOT) != 0; got != want {
		t.Errorf("may reboot: %v, want %v by capabilities %x", got, want, caps)
	}
}
