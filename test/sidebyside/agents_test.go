package sidebyside

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// cAgent is the C agent that behaviour is compared with.
func cAgent(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if dir := os.Getenv("BELLHOP_CACHE"); dir != "" {
		cache = dir
	} else {
		cache = filepath.Join(cache, "bellhop")
	}
	path := filepath.Join(cache, "qemu-ga-c11")
	if _, statErr := os.Stat(path); err != nil || statErr != nil {
		missing(t, "the C agent is not in "+cache+": run make setup")
	}
	return path
}

// missing skips a test that needs what make setup provides; where that has to
// be there, it fails.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("BELLHOP_VM") == "required" {
		t.Fatal(what)
	}
	t.Skip(what)
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
	dir := t.TempDir()
	path := filepath.Join(dir, "qga.sock")
	cmd := exec.Command(program, append([]string{"-m", "unix-listen", "-p", path, "-t", dir}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 200 {
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
