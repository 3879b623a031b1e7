//go:build linux

package sidebyside

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// failing starts an agent of each kind that may do nothing but read, and has a
// directory of files that are no good for much.
func failing(t *testing.T) (c, ours, dir string) {
	t.Helper()
	c, ours = start(t, harmless(t, cAgent(t))), start(t, harmless(t, vm.Build(t, "./cmd/qemu-ga").Path))
	dir = t.TempDir()
	for name, script := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"text":           {"some text\n", 0o644},
		"no-interpreter": {"#!/no/such/interpreter\n", 0o755},
		"no-program":     {"#!" + dir + "\n", 0o755},
		"no-text":        {"#!" + dir + "/text\n", 0o755},
		"itself":         {"#!" + dir + "/itself\n", 0o755},
		"busy":           {"\x7fELF", 0o755},
		"no-elf":         {"\x7fELF\x02\x01\x01", 0o755},
		"root's":         {"#!/bin/sh\n", 0o700},
	} {
		writeFile(t, filepath.Join(dir, name), script.text, script.mode)
	}
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("none", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	// No driver has a device of this number.
	if err := unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o666, int(unix.Mkdev(4000, 1))); err != nil {
		t.Fatal(err)
	}
	return c, ours, dir
}

// sameFailure has both agents fail at the same for the same reason.
func sameFailure(t *testing.T, c, ours, request string) {
	t.Helper()
	want, got := refusal(t, c, request), refusal(t, ours, request)
	if !strings.HasPrefix(want, `{"error": `) {
		t.Errorf("%.300s is no failure: the C agent replies %q", request, want)
	}
	if got != want {
		t.Errorf("%.300s\n got %.500q\nwant %.500q", request, got, want)
	}
}

// TestFileFailures opens what cannot be opened, and does with what can be what it
// does not allow.
func TestFileFailures(t *testing.T) {
	c, ours, dir := failing(t)
	long := strings.Repeat("n", 256)
	for _, name := range []string{
		"", ".", "none", "text/", "text/x", "loop", "loop/x", "dangling", "dangling/x", "socket", "device", long, "none/x",
		strings.Repeat("d/", 2100), "a\x00b", "a\tb", "é\xff", "root's",
	} {
		for _, mode := range []string{"r", "w", "a", "r+", "w+", "a+", "rw", "R", "x", "r ", "wb+x", "\x00"} {
			readable := name == "" || name == "." || name == "root's"
			if readable && mode == "r" {
				continue
			}
			sameFailure(t, c, ours, fmt.Sprintf(`{"execute":"guest-file-open","arguments":{"path":%s,"mode":%s}}`,
				quoted(dir+"/"+name), quoted(mode)))
		}
	}
	for _, path := range []string{"", "none", "/proc/self/task/0", "/proc/1/mem", "/proc/self/fd/900", "//none"} {
		sameFailure(t, c, ours, fmt.Sprintf(`{"execute":"guest-file-open","arguments":{"path":%q}}`, path))
	}

	for i, path := range []string{dir + "/text", dir} {
		same(t, c, ours, fmt.Sprintf(`{"execute":"guest-file-open","arguments":{"path":%q}}`, path))
		ask := func(command, args string) {
			t.Helper()
			same(t, c, ours, fmt.Sprintf(`{"execute":"guest-file-%s","arguments":{"handle":%d%s}}`, command, 1000+i, args))
		}
		for _, count := range []string{
			"-1", "-9223372036854775808", "50331649", "2147483648", "4294967295", "4294967296", "9223372036854775807", "0",
		} {
			ask("read", `,"count":`+count)
			ask("write", `,"buf-b64":"YWJj","count":`+count)
		}
		for _, where := range []string{
			`"offset":-1,"whence":"set"`, `"offset":-1,"whence":"cur"`, `"offset":-9223372036854775808,"whence":"end"`,
			`"offset":-9223372036854775808,"whence":"set"`, `"offset":0,"whence":3`, `"offset":0,"whence":-1`,
			`"offset":0,"whence":4294967296`, `"offset":-1,"whence":9223372036854775807`,
			`"offset":0,"whence":"SEEK_SET"`, `"offset":0,"whence":""`,
		} {
			ask("seek", ","+where)
		}
		ask("read", "")
		ask("write", `,"buf-b64":"YWJj"`)
		ask("write", `,"buf-b64":"YWJj","count":3`)
		ask("write", `,"buf-b64":"YWJj","count":4`)
		ask("write", `,"buf-b64":"","count":1`)
		ask("write", `,"buf-b64":"YWJ*"`)
		ask("flush", "")
		for range 2 { // the second time without a file
			ask("close", "")
			ask("read", "")
			ask("flush", "")
			ask("write", `,"buf-b64":"YWJj"`)
			ask("seek", `,"offset":0,"whence":0`)
		}
	}
}

// TestExecFailures starts what cannot be started.
func TestExecFailures(t *testing.T) {
	c, ours, dir := failing(t)
	// A file that somebody writes to is not executed.
	f, err := os.OpenFile(filepath.Join(dir, "busy"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run := func(args string) {
		t.Helper()
		sameFailure(t, c, ours, `{"execute":"guest-exec","arguments":{`+args+`}}`)
	}
	for _, name := range []string{
		"", ".", "none", "text", "text/", "text/x", "loop", "dangling", "socket", "device", strings.Repeat("n", 256),
		strings.Repeat("d/", 2100), "no-interpreter", "no-program", "no-text", "itself", "busy", "root's", "a\x00b", "é",
	} {
		run(`"path":` + quoted(dir+"/"+name))
		// Looked for in PATH, it can be in no directory.
		run(fmt.Sprintf(`"path":%s,"env":["PATH=%s"]`, quoted(name), dir+"/none"))
	}
	for _, env := range []string{
		`[]`, `[""]`, `["PATH"]`, `["="]`, `["PATH="]`, `["PATH=:"]`, `["=x","PATH=/none","PATH=/bin"]`, `["path=/bin"]`, `["PATH=/dev/null"]`, `["é=ü"]`,
	} {
		run(`"path":"no-such-program","env":` + env)
		run(`"path":"/no/such/program","env":` + env)
	}
	for _, more := range []string{
		`"arg":["` + strings.Repeat("x", 1<<18) + `"]`,
		`"env":["` + strings.Repeat("x", 1<<18) + `"]`,
		`"input-data":"YWJ*"`, `"input-data":"é"`, `"input-data":" "`,
		`"capture-output":"all"`,
	} {
		run(`"path":"/bin/true",` + more)
	}
	for _, more := range []string{
		`"arg":["a","b"]`, `"input-data":"YWJj"`, `"capture-output":true`, `"capture-output":"merged"`, `"capture-output":"separated","input-data":""`,
	} {
		run(`"path":"/no/such/program",` + more)
	}
}

// quoted returns a string of JSON, in which bytes that are no UTF-8 stay.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch {
		case s[i] < ' ':
			fmt.Fprintf(&b, `\u%04x`, s[i])
		case s[i] == '"' || s[i] == '\\':
			b.WriteByte('\\')
			fallthrough
		default:
			b.WriteByte(s[i])
		}
	}
	b.WriteByte('"')
	return b.String()
}

// TestNoStateDir opens a file when the number of its handle cannot be kept.
func TestNoStateDir(t *testing.T) {
	opened := func(program string) string {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		agent := start(t, program, "-t", dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		return refusal(t, agent, `{"execute":"guest-file-open","arguments":{"path":"/dev/null"}}`)
	}
	want, got := opened(cAgent(t)), opened(vm.Build(t, "./cmd/qemu-ga").Path)
	if got != want || !strings.HasPrefix(want, `{"error": `) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestUnreadable has agents whose /proc and /sys are empty, or have something else
// where files should be.
func TestUnreadable(t *testing.T) {
	program := vm.Build(t, "./cmd/qemu-ga").Path
	onFixtureSys(t)
	if err := unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	c, ours := start(t, harmless(t, cAgent(t))), start(t, harmless(t, program))
	for _, dir := range []string{"/proc/self", "/proc/net", "/sys"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for how, spoil := range map[string]func(path string) error{
		"missing": func(string) error { return nil },
		"a loop":  func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"empty":   func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"garbage": func(path string) error { return os.WriteFile(path, []byte("0\ncpu\n8 x\n\x00 1 2:\n"), 0o644) },
	} {
		for _, path := range []string{
			"/proc/stat", "/proc/loadavg", "/proc/diskstats", "/proc/self/mountinfo", "/proc/self/mounts", "/proc/net/dev", "/sys/block",
		} {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(how, func(t *testing.T) {
			for _, request := range []string{
				`{"execute":"guest-get-cpustats"}`,
				`{"execute":"guest-get-load"}`,
				`{"execute":"guest-get-diskstats"}`,
				`{"execute":"guest-get-disks"}`,
				`{"execute":"guest-get-fsinfo"}`,
				`{"execute":"guest-fstrim"}`,
				`{"execute":"guest-fsfreeze-freeze"}`,
				`{"execute":"guest-fsfreeze-freeze-list","arguments":{"mountpoints":["/"]}}`,
				`{"execute":"guest-fsfreeze-status"}`,
				`{"execute":"guest-fsfreeze-thaw"}`,
			} {
				same(t, c, ours, request)
			}
		})
	}
}
