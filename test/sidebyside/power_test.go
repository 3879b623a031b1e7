//go:build linux

package sidebyside

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/power"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/logging"
)

// powerless is a kernel that does nothing, so that this machine stays up.
type powerless struct{}

func (powerless) Signal(int, unix.Signal) error { return unix.EPERM }
func (powerless) MayReboot() bool               { return false }
func (powerless) Sync()                         {}
func (powerless) Reboot(uint32) error           { return unix.EPERM }
func (powerless) Slept() time.Duration          { return 0 }

// TestPower has both agents shut down and suspend a machine whose programs for
// that only note how they were called. They must run the same and answer the
// same.
func TestPower(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"sbin", "bin", "power"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "root/sys"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"root/sbin": "sbin", "root/sys/power": "power"} {
		if err := os.Symlink(filepath.Join(dir, target), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}

	// For the C agent the directories take the place of the real ones.
	c := start(t, apart(t, cAgent(t), fmt.Sprintf(
		"mount --bind %[1]s/sbin \"$(readlink -f /sbin)\"\nmount --bind %[1]s/power /sys/power\nPATH=%[1]s/bin\nexport PATH", dir)))
	ours := serve(t, power.Commands(power.Config{
		Root: root.Dir(filepath.Join(dir, "root")),
		Run: func(ctx context.Context, c run.Command) ([]byte, error) {
			program := c.Args[0]
			c.Args = slices.Clone(c.Args)
			switch {
			case filepath.Dir(program) == "/sbin":
				c.Args[0] = dir + program
			default:
				c.Args[0] = filepath.Join(dir, "bin", program)
			}
			output, err := run.Run(ctx, c)
			if e, ok := errors.AsType[*run.StartError](err); ok {
				e.Program = program
			}
			return output, err
		},
		Kernel: powerless{},
		Audit:  func(string, ...any) {},
		Log:    func(logging.Level, string, ...any) {},
	})...)

	const (
		poweroff = `{"execute":"guest-shutdown"}`
		ram      = `{"execute":"guest-suspend-ram"}`
		disk     = `{"execute":"guest-suspend-disk"}`
		hybrid   = `{"execute":"guest-suspend-hybrid"}`
	)
	mode := func(m string) string {
		return fmt.Sprintf(`{"execute":"guest-shutdown","arguments":{"mode":%q}}`, m)
	}
	type programs map[string]string
	three := programs{"sbin/poweroff": "", "sbin/halt": "", "sbin/reboot": "", "sbin/shutdown": ""}
	for _, step := range []struct {
		name     string
		requests []string
		programs programs // by where they are: what they do besides noting
		state    string   // of /sys/power/state
	}{
		{"three programs", []string{poweroff, mode("powerdown"), mode("halt"), mode("reboot"), mode(""), mode("Halt"), mode("suspend")}, three, ""},
		{"shutdown", []string{poweroff, mode("powerdown"), mode("halt"), mode("reboot")}, programs{"sbin/shutdown": ""}, ""},
		{"not that one", []string{mode("halt"), mode("reboot")}, programs{"sbin/shutdown": "", "sbin/reboot": ""}, ""},
		{"none", []string{poweroff, mode("halt"), mode("reboot")}, nil, ""},
		{"failure", []string{poweroff}, programs{"sbin/poweroff": "exit 3", "sbin/shutdown": ""}, ""},
		{"failure with words", []string{poweroff}, programs{"sbin/poweroff": "echo no; echo way >&2; exit 1"}, ""},
		{"success with words", []string{poweroff}, programs{"sbin/poweroff": "echo bye"}, ""},
		{"shutdown fails", []string{poweroff}, programs{"sbin/shutdown": "echo no; exit 1"}, ""},
		{"signal", []string{poweroff}, programs{"sbin/poweroff": "kill -9 $$"}, ""},
		{"signal with words", []string{poweroff}, programs{"sbin/poweroff": "echo so; kill -9 $$"}, ""},
		{"wrong arguments", []string{
			`{"execute":"guest-shutdown","arguments":{"mode":1}}`,
			`{"execute":"guest-shutdown","arguments":{"delay":1}}`,
			`{"execute":"guest-suspend-ram","arguments":{"mode":"x"}}`,
		}, three, ""},

		{"systemd at rest", []string{ram, disk, hybrid}, programs{"bin/systemctl": `[ $1 != status ] || exit 3`}, "freeze mem disk\n"},
		{"systemd failed", []string{ram}, programs{"bin/systemctl": `[ $1 != status ] || exit 1`}, "mem\n"},
		{"systemd unknown", []string{ram, disk, hybrid}, programs{"bin/systemctl": `exit 4`}, ""},
		{"systemd fails", []string{ram, disk}, programs{"bin/systemctl": `[ $1 != status ] || exit 3; exit 1`}, "mem disk\n"},
		{"pm-utils", []string{ram, disk, hybrid}, programs{
			"bin/systemctl": "exit 4", "bin/pm-is-supported": "", "bin/pm-suspend": "", "bin/pm-hibernate": "", "bin/pm-suspend-hybrid": "",
		}, "mem disk\n"},
		{"pm-utils alone", []string{ram}, programs{"bin/pm-is-supported": "", "bin/pm-suspend": "echo fine"}, ""},
		{"pm-utils cannot", []string{ram, disk, hybrid}, programs{"bin/pm-is-supported": "exit 1", "bin/pm-suspend": ""}, ""},
		{"pm-utils fails", []string{ram}, programs{"bin/pm-is-supported": "", "bin/pm-suspend": "exit 1"}, "mem\n"},
		{"pm-utils in part", []string{ram}, programs{"bin/pm-is-supported": ""}, "mem\n"},
		{"kernel", []string{ram, disk, hybrid}, nil, "freeze mem disk\n"},
		{"kernel in part", []string{disk}, nil, "freeze mem\n"},
		{"nothing", []string{ram, disk, hybrid}, nil, ""},
	} {
		for _, name := range []string{"sbin", "bin", "power"} {
			clear(t, filepath.Join(dir, name))
		}
		for name, script := range step.programs {
			text := fmt.Sprintf("#!/bin/sh\n{ printf %%s \"${0##*/}\"; printf \" <%%s>\" \"$@\"; echo; } >>%s/notes\n%s\n", dir, script)
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, request := range step.requests {
			var did [2]string
			for i, agent := range []string{c, ours} {
				if step.state != "" {
					if err := os.WriteFile(filepath.Join(dir, "power/state"), []byte(step.state), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				reply := exchange(t, agent, []byte(request+"\n"))
				did[i] = fmt.Sprintf("%s%s%s", withoutPosition(reply), taken(filepath.Join(dir, "notes")), taken(filepath.Join(dir, "power/state")))
			}
			if did[0] != did[1] {
				t.Errorf("%s: %s\n got %q\nwant %q", step.name, request, did[1], did[0])
			}
		}
	}
}

// clear empties a directory, which stays the same directory.
func clear(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// taken returns what was in a file, if there is one, which it removes.
func taken(name string) string {
	data, _ := os.ReadFile(name)
	_ = os.Remove(name)
	return string(data)
}
