//go:build linux

package sidebyside

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/logging"
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

// apart returns a program that is the given one in a view of its own of the file
// system, which script makes. Nobody else sees it.
func apart(t testing.TB, program, script string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := filepath.Join(t.TempDir(), "agent")
	text := fmt.Sprintf("#!/bin/sh\nset -e\n[ -n \"$APART\" ] || APART=1 exec unshare --mount \"$0\" \"$@\"\n%s\nexec %s \"$@\"\n", script, program)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs an agent on a unix socket, in a directory of its own, and returns
// the socket's path.
func start(t testing.TB, program string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
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
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return path
		}
	}
	t.Fatalf("%s does not answer on %s", program, path)
	return ""
}

// serve has an agent with the given commands in this process, for what must not
// be done really or is not in the program, and returns its socket's path.
func serve(t testing.TB, handlers ...agent.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ours.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	a := agent.New(logging.New(logging.Discard, logging.Discard, false), nil, handlers...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Listen(ctx, acceptor{l})
	}()
	t.Cleanup(func() { cancel(); l.Close(); <-done })
	return path
}

type acceptor struct{ net.Listener }

func (a acceptor) Accept(context.Context) (io.ReadWriteCloser, error) { return a.Listener.Accept() }
