//go:build unix

package daemonize

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The program under test is the test binary, which behaves as the agent with
// -d when this variable tells it what the daemon is to do.
const modeVariable = "DAEMONIZE_TEST_MODE"

func TestMain(m *testing.M) {
	mode := os.Getenv(modeVariable)
	if mode == "" {
		os.Exit(m.Run())
	}
	d := Child()
	if d == nil {
		status, err := Parent()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(status)
	}
	daemon(d, mode)
}

// daemon is the daemon's side. A report of what it found goes to a file.
func daemon(d *Daemon, mode string) {
	switch mode {
	case "fail":
		fmt.Fprintln(os.Stderr, "no channel")
		os.Exit(7)
	case "killed":
		syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // it does not return
	}
	if err := d.Ready(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "this must not be seen")
	dir, _ := os.Getwd()
	mask := syscall.Umask(0)
	session, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
	var report bytes.Buffer
	fmt.Fprintf(&report, "args=%q\ndir=%s\numask=%04o\nleader=%v\n", os.Args[1:], dir, mask, int(session) == os.Getpid())
	fmt.Fprintf(&report, "listen=%v\nmarked=%q\npid=%d\n", os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()), os.Getenv(readyVariable), os.Getpid())
	if err := os.WriteFile(mode+".tmp", report.Bytes(), 0o600); err != nil {
		os.Exit(1)
	}
	if err := os.Rename(mode+".tmp", mode); err != nil {
		os.Exit(1)
	}
	// Until the test has looked; bounded, so that nothing is left behind.
	for range 12_000 {
		if _, err := os.Stat(mode); err != nil {
			os.Exit(0)
		}
		time.Sleep(10 * time.Millisecond)
	}
	os.Exit(0)
}

// start runs the program to the end of its first process.
func start(t *testing.T, mode string, env ...string) (status int, stderr string) {
	t.Helper()
	// Through a shell, so that LISTEN_PID can be the process id, as a service
	// manager makes it.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" one "two three"`, os.Args[0])
	cmd.Env = append(os.Environ(), modeVariable+"="+mode, "GORACE=atexit_sleep_ms=0")
	cmd.Env = append(cmd.Env, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestReady(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "report")
	// cmd.Run ends only when nobody holds the output's pipe any more: that the
	// daemon let go of it is part of the test.
	status, stderr := start(t, path)
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, output %q", status, stderr)
	}
	var report []byte
	for range 6_000 {
		var err error
		if report, err = os.ReadFile(path); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	want := "args=[\"one\" \"two three\"]\ndir=/\numask=0077\nleader=true\nlisten=true\nmarked=\"\"\npid="
	got, pid, _ := strings.Cut(string(report), "pid=")
	if got+"pid=" != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(pid)); err != nil || syscall.Kill(n, 0) != nil {
		t.Errorf("the daemon %q does not run", pid)
	}
	if err := os.Remove(path); err != nil { // lets it end
		t.Error(err)
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	if status, stderr := start(t, "fail"); status != 7 || stderr != "no channel\n" {
		t.Errorf("got %d, %q, want the daemon's status and text", status, stderr)
	}
	if status, _ := start(t, "killed"); status != 1 {
		t.Errorf("daemon killed: status %d, want 1", status)
	}
}

func TestForeignVariable(t *testing.T) {
	for _, value := range []string{"", "x", "-1", "12345"} {
		t.Setenv(readyVariable, value)
		if Child() != nil {
			t.Errorf("%s=%q makes a daemon", readyVariable, value)
		}
		if _, ok := os.LookupEnv(readyVariable); ok {
			t.Errorf("%s is left in the environment", readyVariable)
		}
	}
}
