//go:build linux

package systemd

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Sockets are passed at fixed descriptors, so each case is a process of its
// own: this test binary, which prints what Listener returns.
func TestMain(m *testing.M) {
	if pid := os.Getenv("SYSTEMD_TEST_PID"); pid != "" {
		if pid == "self" {
			pid = strconv.Itoa(os.Getpid())
		}
		os.Setenv("LISTEN_PID", pid)
		s := FromEnvironment()
		fd, family, err := s.Listener()
		if keepErr := s.Keep(); keepErr != nil {
			fd, family, err = -1, "", keepErr
		}
		fmt.Printf("%d %s %v", fd, family, err)
		for _, name := range os.Environ() {
			if strings.HasPrefix(name, "LISTEN_") {
				fmt.Printf(" left: %s", name)
			}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestListener(t *testing.T) {
	t.Parallel()
	unixListener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unixListener.Close()
	unixFile, err := unixListener.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer unixFile.Close()
	tcpListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcpListener.Close()
	tcpFile, err := tcpListener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcpFile.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()

	tests := []struct {
		fds, pid string
		files    []*os.File
		want     string
	}{
		{"1", "self", []*os.File{unixFile}, "3 unix-listen <nil>"},
		{"1", "self", []*os.File{tcpFile}, "-1  unsupported listen fd type"},
		{"1", "self", []*os.File{null}, "-1  unsupported listen fd type"},
		{"2", "self", []*os.File{unixFile, unixFile}, "-1  qemu-ga only supports listening on one socket"},
		{"99", "self", []*os.File{unixFile, unixFile}, "-1  Socket activation failed: invalid file descriptor fd = "},
		{"0", "self", nil, "-1  <nil>"},
		{"1", "1", []*os.File{unixFile}, "-1  <nil>"},
		{"x", "self", []*os.File{unixFile}, "-1  <nil>"},
		{"-1", "self", nil, "-1  <nil>"},
	}
	for _, tt := range tests {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SYSTEMD_TEST_PID="+tt.pid, "LISTEN_FDS="+tt.fds, "LISTEN_FDNAMES=a:b", "GORACE=atexit_sleep_ms=0")
		cmd.ExtraFiles = tt.files
		got, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(got), tt.want) || bytes.Contains(got, []byte("left:")) {
			t.Errorf("LISTEN_FDS=%s LISTEN_PID=%s: got %q, want %q", tt.fds, tt.pid, got, tt.want)
		}
	}
}

func TestNotify(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@bellhop-test-" + strconv.Itoa(os.Getpid())} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		s := FromEnvironment()
		if err := s.Keep(); err != nil {
			t.Error(err)
		}
		if _, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
			t.Error("NOTIFY_SOCKET is left in the environment")
		}
		for _, want := range []string{Ready, Alive, Stopping} {
			if err := s.Notify(want); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, err := conn.Read(buf)
			if got := string(buf[:n]); got != want || err != nil {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
			}
		}
	}
}

func TestNotifyWithoutManager(t *testing.T) {
	t.Parallel()
	if err := (&Service{}).Notify(Ready); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"/nonexist", "vsock:2:1"} {
		if err := (&Service{notifySocket: name}).Notify(Ready); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNotifyGivesUp(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := &Service{notifySocket: name}
	for range 10000 { // nobody reads, until the queue is full
		if err = s.Notify(Alive); err != nil {
			return
		}
	}
	t.Error("no error with a full queue")
}

func TestWatchdog(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"3000000", "", 3 * time.Second},
		{"3000000", self, 3 * time.Second},
		{"3000000", "1", 0},
		{"0", "", 0},
		{"-5", "", 0},
		{"x", "", 0},
		{"9223372036854775807", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		service := FromEnvironment()
		if got := service.Watchdog(); got != tt.want {
			t.Errorf("%q for %q: got %v, want %v", tt.usec, tt.pid, got, tt.want)
		}
		if err := service.Keep(); err != nil {
			t.Error(err)
		}
		if _, ok := os.LookupEnv("WATCHDOG_USEC"); ok {
			t.Error("WATCHDOG_USEC is left in the environment")
		}
	}
}
