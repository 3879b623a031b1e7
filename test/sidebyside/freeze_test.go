//go:build linux

package sidebyside

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFreeze replays the captures of freeze and thaw, in order, on file systems
// in files: one that is mounted in another, and a bind mount of the first. Only
// these are ever frozen; to thaw the others does them no harm.
func TestFreeze(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	// One agent after another: each would thaw what the other has frozen.
	for _, a := range agentsUnderTest {
		t.Run(a.name, func(t *testing.T) { replayFreeze(t, a) })
	}
}

func replayFreeze(t *testing.T, a agentUnderTest) {
	dir := t.TempDir()
	// The hook does what the file beside it says.
	hook, script := filepath.Join(dir, "hook"), filepath.Join(dir, "script")
	writeFile(t, hook, "#!/bin/sh\n. "+script+"\n", 0o755)
	first, second := filepath.Join(dir, "m1"), filepath.Join(dir, "m1/sub dir")
	mountLoop(t, filepath.Join(dir, "1.img"), first)
	mountLoop(t, filepath.Join(dir, "2.img"), second)
	bind := filepath.Join(dir, "b ind")
	if err := os.Mkdir(bind, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(first, bind, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(bind, 0) })

	path := start(t, a.program(t), "-F"+hook)
	local := func(s string) string { return strings.ReplaceAll(s, "/srv/freeze", dir) }
	for _, c := range captures(t, a.version, "freeze") {
		says := map[string]string{
			"freeze-hook-fail":        "exit 3\n",
			"freeze-hook-fail-output": "echo hook says no\nexit 3\n",
			"thaw-hook-fail":          "exit 4\n",
		}[c.Name]
		writeFile(t, script, says, 0o644)
		want := latin1(local(c.Response))
		check(t, a, c, want, replyTo(t, path, latin1(local(c.Request)), a.wanted(c, want)))
	}
}

func writeFile(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// mountLoop makes a file system in a file and mounts it for the test.
func mountLoop(t *testing.T, image, point string) {
	t.Helper()
	writeFile(t, image, "", 0o600)
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"/sbin/mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, point}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%q: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		// It fails unless a test has left it frozen.
		_ = exec.Command("/sbin/fsfreeze", "--unfreeze", point).Run()
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
