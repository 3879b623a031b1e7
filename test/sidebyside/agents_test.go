//go:build linux

package sidebyside

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// cAgent is the C agent that behaviour is compared with, oldCAgent the one of
// Debian 12.
func cAgent(t testing.TB) string    { return setUp(t, 11) }
func oldCAgent(t testing.TB) string { return setUp(t, 7) }

func setUp(t testing.TB, major int) string {
	t.Helper()
	vm.Need(t)
	return vm.CAgentCommand(major)
}

// startC runs the C agent on a unix socket and returns its path.
func startC(t testing.TB, args ...string) string {
	t.Helper()
	return start(t, cAgent(t), args...)
}

// start runs an agent on a unix socket, in a directory of its own, and returns
// the socket's path.
func start(t testing.TB, program string, args ...string) string {
	t.Helper()
	return startIn(t, t.TempDir(), program, false, args...)
}

// startIn runs an agent in dir. With frozen it finds there that an earlier
// agent ended while file systems were frozen.
func startIn(t testing.TB, dir, program string, frozen bool, args ...string) string {
	t.Helper()
	if frozen {
		if err := os.WriteFile(filepath.Join(dir, "qga.state.isfrozen"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "qga.sock")
	cmd := exec.Command(program, append([]string{"-m", "unix-listen", "-p", path, "-t", dir}, args...)...)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 500 {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return path
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not answer on %s", program, path)
	return ""
}
