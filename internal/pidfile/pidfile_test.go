//go:build unix

package pidfile

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// A lock of a process does not exclude that process, so the tests need another
// one: the test binary itself, which holds the file until its input ends.
func TestMain(m *testing.M) {
	if path := os.Getenv("PIDFILE_TEST_HOLD"); path != "" {
		f, err := Create(path)
		fmt.Println(err)
		if err == nil {
			bufio.NewReader(os.Stdin).ReadByte() //nolint:errcheck // end of file is what it waits for
			f.Close()
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// hold starts a process that claims path, and returns what came of it and a
// function that ends the process.
func hold(t *testing.T, path string) (result string, pid int, end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PIDFILE_TEST_HOLD="+path, "GORACE=atexit_sleep_ms=0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(stdout)
	scanner.Scan()
	return scanner.Text(), cmd.Process.Pid, func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(path, []byte("a stale and much longer file\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if want := strconv.Itoa(os.Getpid()) + "\n"; string(data) != want || err != nil {
		t.Errorf("contents %q, %v, want %q", data, err, want)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after Close: %v", err)
	}
}

func TestMode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pid")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestSecondIsKeptOut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pid")
	result, pid, end := hold(t, path)
	if result != "<nil>" {
		t.Fatal(result)
	}
	_, err := Create(path)
	if want := "Cannot lock pid file: Resource temporarily unavailable"; err == nil || err.Error() != want {
		t.Errorf("err = %v, want %s", err, want)
	}
	data, err := os.ReadFile(path)
	if want := strconv.Itoa(pid) + "\n"; string(data) != want || err != nil {
		t.Errorf("contents %q, %v, want %q: the first one's file was touched", data, err, want)
	}
	end()
	f, err := Create(path)
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	f.Close()
}

func TestCloseLeavesTheFileOfAnother(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pid")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	result, _, end := hold(t, path)
	defer end()
	if result != "<nil>" {
		t.Fatal(result)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the other's file: %v", err)
	}
}

func TestNoDirectory(t *testing.T) {
	t.Parallel()
	_, err := Create(filepath.Join(t.TempDir(), "missing", "pid"))
	if want := "Cannot open pid file: No such file or directory"; err == nil || err.Error() != want {
		t.Errorf("err = %v, want %s", err, want)
	}
}
