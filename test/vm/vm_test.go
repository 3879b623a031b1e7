//go:build linux

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for a guest.
const patience = 5 * time.Minute

// TestBoot goes once through what a guest offers, with QEMU's own agent in the
// place of the one under test.
func TestBoot(t *testing.T) {
	g := Start(t, Config{
		Agents:     []Agent{{Program: CAgent(7), Port: AgentPort}},
		CPUs:       2,
		Memory:     256,
		Modules:    []string{"virtio-rng"},
		KernelArgs: []string{"bellhop.test=yes"},
		QEMUArgs:   []string{"-device", "virtio-rng-pci"},
		Files: map[string]File{
			"/etc/secret": {Data: "hush\n", Mode: 0o600},
			"/etc/link":   {Data: "secret", Mode: os.ModeSymlink},
		},
		Programs: map[string]Program{"/usr/bin/other-agent": CAgent(11)},
		Start:    "echo started >/run/started",
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	var info struct{ Return struct{ Version string } }
	conn := dial(t, g.Socket())
	ask(t, conn, `{"execute":"guest-info"}`, &info)
	if !strings.HasPrefix(info.Return.Version, "7.") {
		t.Errorf("version %q on the agent's port, want 7", info.Return.Version)
	}

	for _, tt := range []struct{ script, want string }{
		{"cat /run/started", "started\n"},
		{"nproc", "2\n"},
		{"hostname", "guest\n"},
		{"cat /etc/link", "hush\n"},
		{"stat -c %a:%u:%g / /etc/secret", "755:0:0\n600:0:0\n"},
		{"cat /sys/class/misc/hw_random/rng_current", "virtio_rng.0\n"},
		{"grep -o bellhop.test=yes /proc/cmdline", "bellhop.test=yes\n"},
		{"other-agent --version | cut -d. -f1", "QEMU Guest Agent 11\n"},
		{"dmesg | grep -c -e Oops -e 'Call Trace'; true", "0\n"},
	} {
		got, err := g.Shell(ctx, tt.script)
		if err != nil {
			t.Error(err)
		} else if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.script, got, tt.want)
		}
	}

	r, err := g.Run(ctx, "sh", "-c", "echo out; echo err >&2; exit 3")
	if want := (Result{3, "out\n", "err\n"}); err != nil || r != want {
		t.Errorf("got %+v and %v, want %+v", r, err, want)
	}
	if r, err = g.Run(ctx, "sh", "-c", "kill -9 $$"); err != nil || r.Exit != 128+9 {
		t.Errorf("got %+v and %v, want exit %d", r, err, 128+9)
	}
	if _, err := g.Shell(ctx, "echo no such luck >&2; false"); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("failing script: got %v", err)
	}

	var status struct{ Status string }
	if raw, err := g.QMP(ctx, "query-status", nil); err != nil {
		t.Error(err)
	} else if json.Unmarshal(raw, &status); status.Status != "running" {
		t.Errorf("got status %s, want running", raw)
	}
	if _, err := g.QMP(ctx, "device_del", map[string]any{"id": "none"}); err == nil || !strings.Contains(err.Error(), "DeviceNotFound") {
		t.Errorf("device_del: got %v", err)
	}

	t.Run("agent restarts while the host stays connected", func(t *testing.T) {
		before, err := g.AgentPID(ctx, AgentPort)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Shell(ctx, fmt.Sprintf("kill -9 %d; while [ -e /proc/%[1]d ]; do sleep 0.02; done", before)); err != nil {
			t.Fatal(err)
		}
		ask(t, conn, `{"execute":"guest-ping"}`, new(any))
		if after, err := g.AgentPID(ctx, AgentPort); err != nil || after == before {
			t.Errorf("agent's process ID is %d and was %d, error %v", after, before, err)
		}
	})

	t.Run("shutdown", func(t *testing.T) {
		// The agent does not answer this one.
		if _, err := conn.Write([]byte(`{"execute":"guest-shutdown"}` + "\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := g.WaitEvent(ctx, "SHUTDOWN"); err != nil {
			t.Error(err)
		}
		if err := g.Wait(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestImage boots a guest that has a distribution.
func TestImage(t *testing.T) {
	g := Start(t, Config{
		Image:    Debian,
		Agents:   []Agent{{Program: CAgent(7), Port: AgentPort, Args: []string{"-v"}}, {Program: ImageCAgent, Port: "org.example.other"}},
		CPUs:     2,
		Memory:   1024,
		Modules:  []string{"dummy"},
		Files:    map[string]File{"/etc/secret": {Data: "hush\n", Mode: 0o600}},
		Programs: map[string]Program{"/usr/bin/other-agent": CAgent(7)},
		Start:    "echo started >/run/started",
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var info struct{ Return struct{ Version string } }
	for _, tt := range []struct{ port, version string }{{AgentPort, "7."}, {"org.example.other", "11."}} {
		conn := dial(t, g.PortSocket(tt.port))
		ask(t, conn, `{"execute":"guest-info"}`, &info)
		if !strings.HasPrefix(info.Return.Version, tt.version) {
			t.Errorf("version %q on %s, want %s", info.Return.Version, tt.port, tt.version)
		}
	}
	for _, tt := range []struct{ script, want string }{
		{". /etc/os-release; echo $ID $VERSION_ID", "debian 13\n"},
		{"cat /run/started", "started\n"},
		{"nproc", "2\n"},
		{"stat -c %a:%u:%g / /etc/secret", "755:0:0\n600:0:0\n"},
		{"test -d /sys/module/dummy && echo yes", "yes\n"},
		{"other-agent --version | cut -d. -f1", "QEMU Guest Agent 7\n"},
		{"systemctl --failed --no-legend", ""},
		{"tr '\\0' ' ' </proc/$(systemctl show -P MainPID qemu-guest-agent)/cmdline | grep -o -e ' -v'", " -v\n"},
	} {
		got, err := g.Shell(ctx, tt.script)
		if err != nil {
			t.Error(err)
		} else if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.script, got, tt.want)
		}
	}
	for _, port := range []string{AgentPort, "org.example.other"} {
		if pid, err := g.AgentPID(ctx, port); err != nil {
			t.Error(err)
		} else if _, err := g.Shell(ctx, fmt.Sprintf("tr '\\0' ' ' </proc/%d/cmdline | grep qemu-ga", pid)); err != nil {
			t.Error(err)
		}
	}
}

// TestStop checks that nothing of a guest is left, also if it is stopped twice.
func TestStop(t *testing.T) {
	g := Start(t, Config{NoWitness: true})
	pid := g.cmd.Process.Pid
	if _, err := g.Run(t.Context(), "true"); err == nil {
		t.Error("a guest without witness runs commands")
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("QEMU is still there: %v", err)
	}
	if _, err := os.Stat(g.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory is still there: %v", err)
	}
	if _, err := g.QMP(t.Context(), "query-status", nil); err == nil {
		t.Error("QMP answers after the end")
	}
	if _, err := g.WaitEvent(t.Context(), "RESET"); err == nil {
		t.Error("QMP reports events after the end")
	}
}

// TestBootFails checks that failures tell their reason, and do not wait.
func TestBootFails(t *testing.T) {
	Need(t)
	for name, tt := range map[string]struct {
		config Config
		want   string
	}{
		"no such program": {Config{Agents: []Agent{{Program: Program{Path: "/none"}}}}, "open /none"},
		"no such module":  {Config{Modules: []string{"none"}}, "kernel module none"},
		"bad option":      {Config{QEMUArgs: []string{"-device", "none"}}, "'none' is not a valid device"},
		"panic":           {Config{Start: "exit 1"}, "Attempted to kill init"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			g, err := Boot(ctx, tt.config)
			if err == nil {
				g.Stop(ctx)
				t.Fatal("guest booted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func ask(t *testing.T, conn net.Conn, request string, reply any) {
	t.Helper()
	if _, err := conn.Write([]byte(request + "\n")); err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(conn).Decode(reply); err != nil {
		t.Fatalf("%s: %v", request, err)
	}
}
