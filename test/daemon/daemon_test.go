//go:build linux

// Package daemon tests the agent's program as a daemon on the host: options,
// exit codes, signals, logs, service manager, sockets and the programs that it
// starts. It is sent nothing that would change the machine.
package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// program is the agent as it is shipped.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bellhop-daemon-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "qemu-ga")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/bellhop-vm/bellhop/cmd/qemu-ga")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience bounds every wait.
const patience = time.Minute

// tempDir returns a directory with a path short enough for sockets.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qga-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// A process is an agent that was started.
type process struct {
	*exec.Cmd
	dir    string
	stderr bytes.Buffer
	ended  chan struct{}
}

func (p *process) socket() string { return filepath.Join(p.dir, "sock") }

// command returns an agent that is yet to be started, with its state in a
// directory of its own and a clean environment.
func command(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{dir: tempDir(t), ended: make(chan struct{})}
	p.Cmd = exec.Command(program, append([]string{"-t", p.dir}, args...)...)
	p.Env = []string{"PATH=" + os.Getenv("PATH"), "QGA_CONF=/nonexistent"}
	p.Dir = p.dir
	p.Cmd.Stderr = &p.stderr
	return p
}

func (p *process) start(t *testing.T) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait() // ProcessState has it all
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("standard error of %v:\n%s", p.Args, p.stderr.Bytes())
		}
	})
}

// wait returns the exit status.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%v does not end", p.Args)
		return -1
	}
}

// serve starts an agent on a unix socket.
func serve(t *testing.T, args ...string) *process {
	t.Helper()
	p := command(t, append([]string{"-m", "unix-listen", "-p", "sock"}, args...)...)
	p.start(t)
	p.awaitSocket(t)
	return p
}

func (p *process) awaitSocket(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		conn, err := net.Dial("unix", p.socket())
		if err == nil {
			conn.Close()
		}
		return err
	})
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// A client is a host's connection.
type client struct {
	t *testing.T
	io.ReadWriteCloser
	r *bufio.Reader
}

func dial(t *testing.T, path string) *client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return newClient(t, conn)
}

func newClient(t *testing.T, conn io.ReadWriteCloser) *client {
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// ask sends a request and returns the reply, as it is.
func (c *client) ask(format string, args ...any) string {
	c.t.Helper()
	c.send(format, args...)
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (c *client) ping() {
	c.t.Helper()
	if got := c.ask(`{"execute":"guest-ping"}`); got != `{"return": {}}` {
		c.t.Fatalf("ping: %s", got)
	}
}

// call makes a request and decodes what it returns.
func (c *client) call(result any, format string, args ...any) {
	c.t.Helper()
	line := c.ask(format, args...)
	reply := struct{ Return any }{result}
	if err := json.Unmarshal([]byte(line), &reply); err != nil || strings.HasPrefix(line, `{"error"`) {
		c.t.Fatalf("%s: %v", line, err)
	}
}

// run runs a shell script through the agent and returns its output.
func (c *client) run(script string) string {
	c.t.Helper()
	quoted, err := json.Marshal(script)
	if err != nil {
		c.t.Fatal(err)
	}
	var started struct{ PID int }
	c.call(&started, `{"execute":"guest-exec","arguments":{"path":"/bin/sh","arg":["-c",%s],"capture-output":"merged"}}`, quoted)
	var status struct {
		Exited bool
		Data   []byte `json:"out-data"`
	}
	eventually(c.t, func() error {
		c.call(&status, `{"execute":"guest-exec-status","arguments":{"pid":%d}}`, started.PID)
		if !status.Exited {
			return errors.New("the script does not end")
		}
		return nil
	})
	return string(status.Data)
}

// TestExit checks how the program ends at once, and what it says.
func TestExit(t *testing.T) {
	dir := tempDir(t)
	file := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := file("plain", "not a socket")
	good := file("good.conf", "[general]\nmethod=unix-listen\npath=/from/file\nverbose=true\n")
	bad := file("bad.conf", "[general]\nverbose=maybe\n")
	none := filepath.Join(dir, "none")
	unix := []string{"-m", "unix-listen", "-p", filepath.Join(dir, "sock")}

	for _, tt := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{[]string{"-V"}, 0, "QEMU Guest Agent ", ""},
		{[]string{"--version"}, 0, "QEMU Guest Agent ", ""},
		{[]string{"-h"}, 0, "--retry-path", ""},
		{[]string{"--help"}, 0, "--retry-path", ""},
		{[]string{"-b", "help"}, 0, "guest-sync-delimited\nguest-sync\nguest-ping\n", ""},
		{[]string{"-b", "?"}, 0, "\nguest-exec-status\n", ""},
		{[]string{"--block-rpcs=help"}, 0, "\nguest-exec\n", ""},
		{[]string{"--blacklist=help"}, 0, "\nguest-exec\n", ""},
		{[]string{"-a", "help"}, 0, "\nguest-exec\n", ""},
		{[]string{"--allow-rpcs", "?"}, 0, "\nguest-exec\n", ""},
		{[]string{"-D"}, 0, "[general]\ndaemon=false\nmethod=virtio-serial\n", ""},
		{[]string{"--dump-conf", "-c", good}, 0, "path=/from/file\n", ""},
		{[]string{"-D", "--config=" + good, "-p", "/from/line"}, 0, "path=/from/line\n", ""},
		{[]string{"--no-such-option"}, 1, "Unknown option, try '", "unrecognized option '--no-such-option'"},
		{[]string{"-X"}, 1, "Unknown option, try '", "invalid option -- 'X'"},
		{[]string{"-p"}, 1, "Unknown option, try '", "option requires an argument -- 'p'"},
		{[]string{"-c", bad}, 1, "", "error loading configuration from path: " + bad},
		{[]string{"-V", "-c", bad}, 1, "", "error loading configuration from path: " + bad},
		{[]string{"-c", none}, 1, "", "error loading configuration from path: " + none + ", No such file or directory"},
		{[]string{"-m", "unix-listen"}, 1, "", "must specify a path for this channel"},
		{[]string{"-m", "pigeon", "-p", "x"}, 1, "", "unsupported channel method/type: pigeon"},
		{[]string{"-p", none}, 1, "", "error opening channel '" + none + "': No such file or directory"},
		{[]string{"-m", "isa-serial", "-p", none}, 1, "", "error opening channel '" + none + "': No such file or directory"},
		{[]string{"-p", plain}, 1, "", "error opening channel '" + plain + "'"},
		{[]string{"-m", "unix-listen", "-p", plain}, 1, "", "Failed to bind socket to " + plain + ": Address already in use"},
		{[]string{"-m", "unix-listen", "-p", none + "/sock"}, 1, "", "Failed to bind socket to "},
		{[]string{"-m", "unix-listen", "-p", "/" + strings.Repeat("x", 200)}, 1, "", "is too long"},
		{[]string{"-m", "vsock-listen", "-p", "1"}, 1, "", "error parsing address '1'"},
		{[]string{"-m", "vsock-listen", "-p", "a:1"}, 1, "", "Failed to parse cid 'a'"},
		{[]string{"-m", "vsock-listen", "-p", "1:b"}, 1, "", "Failed to parse port 'b'"},
		{append(unix, "-t", none), 1, "", none},
		{append(unix, "-l", none+"/log"), 1, "", "unable to open specified log file: No such file or directory"},
		{append(unix, "-d", "-f", none+"/pid"), 1, "", "Cannot open pid file: No such file or directory"},
		{append(unix, "-d", "-t", none), 1, "", none},
	} {
		p := command(t, tt.args...)
		var stdout bytes.Buffer
		p.Stdout = &stdout
		p.start(t)
		if status := p.wait(t); status != tt.status {
			t.Errorf("%q: exit status %d, want %d", tt.args, status, tt.status)
		}
		if got := stdout.String(); !strings.Contains(got, tt.stdout) || tt.stdout == "" && got != "" {
			t.Errorf("%q: standard output %q, want %q", tt.args, got, tt.stdout)
		}
		if got := p.stderr.String(); !strings.Contains(got, tt.stderr) || tt.stderr == "" && got != "" {
			t.Errorf("%q: standard error %q, want %q", tt.args, got, tt.stderr)
		}
	}
	if got, err := os.ReadFile(plain); err != nil || string(got) != "not a socket" {
		t.Errorf("the file that was no socket is now %q, %v", got, err)
	}
}

// TestOptions checks that each option's short and long forms mean the same,
// and that they mean something.
func TestOptions(t *testing.T) {
	dump := func(args ...string) string {
		t.Helper()
		p := command(t, append(args, "-D")...)
		p.Args = slices.Delete(p.Args, 1, 3) // the state directory differs
		var stdout bytes.Buffer
		p.Stdout = &stdout
		p.start(t)
		if status := p.wait(t); status != 0 {
			t.Errorf("%q: exit status %d", args, status)
		}
		return stdout.String()
	}
	plain := dump()
	for _, tt := range []struct {
		short, long []string
		want        string
	}{
		{[]string{"-m", "isa-serial"}, []string{"--method=isa-serial"}, "method=isa-serial\npath=/dev/ttyS0\n"},
		{[]string{"-p/a"}, []string{"--path", "/a"}, "path=/a\n"},
		{[]string{"-l", "/log"}, []string{"--logfile=/log"}, "logfile=/log\n"},
		{[]string{"-f", "/pid"}, []string{"--pidfile=/pid"}, "pidfile=/pid\n"},
		{[]string{"-F"}, []string{"--fsfreeze-hook"}, "fsfreeze-hook=/etc/qemu/fsfreeze-hook\n"},
		{[]string{"-F/hook"}, []string{"--fsfreeze-hook=/hook"}, "fsfreeze-hook=/hook\n"},
		{[]string{"-t", "/state"}, []string{"--statedir=/state"}, "statedir=/state\n"},
		{[]string{"-v"}, []string{"--verbose"}, "verbose=true\n"},
		{[]string{"-d"}, []string{"--daemonize"}, "daemon=true\n"},
		{[]string{"-d"}, []string{"--daemon"}, "daemon=true\n"},
		{[]string{"-r"}, []string{"--retry-path"}, "retry-path=true\n"},
		{[]string{"-b", "a,b", "-bc"}, []string{"--block-rpcs=a,b", "--blacklist", "c"}, "block-rpcs=b,a,c\n"},
		{[]string{"-a", "a,b"}, []string{"--allow-rpcs=a,b"}, "allow-rpcs=b,a\n"},
		{[]string{"-dvr"}, []string{"--daemonize", "--verbose", "--retry-path"}, "verbose=true\nretry-path=true\n"},
	} {
		short, long := dump(tt.short...), dump(tt.long...)
		if short != long || short == plain || !strings.Contains(short, tt.want) {
			t.Errorf("%q leads to\n%s%q leads to\n%swant %q", tt.short, short, tt.long, long, tt.want)
		}
	}

	// The file that the environment names.
	path := filepath.Join(tempDir(t), "conf")
	if err := os.WriteFile(path, []byte("[general]\nmethod=unix-listen\npath=/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := command(t, "-D")
	p.Env = append(p.Env, "QGA_CONF="+path)
	var stdout bytes.Buffer
	p.Stdout = &stdout
	p.start(t)
	if p.wait(t); !strings.Contains(stdout.String(), "method=unix-listen\npath=/x\n") {
		t.Errorf("with QGA_CONF:\n%s", stdout.Bytes())
	}
}

func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := serve(t)
		dial(t, p.socket()).ping() // a client that stays is no obstacle
		if err := p.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if status := p.wait(t); status != 0 {
			t.Errorf("%v: exit status %d, want 0", sig, status)
		}
		if p.stderr.Len() > 0 {
			t.Errorf("%v: standard error %q", sig, &p.stderr)
		}
	}

	// One that never got to serve has failed, like the C agent.
	p := command(t, "--retry-path", "-v", "-p", "none")
	r, w := io.Pipe()
	p.Cmd.Stderr = w
	p.start(t)
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || !strings.Contains(line, "waiting for channel path...") {
		t.Fatalf("got %q, %v", line, err)
	}
	go io.Copy(io.Discard, r)
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(t); status != 1 {
		t.Errorf("while waiting for its path: exit status %d, want 1", status)
	}
}

// TestHangup rotates the log, as logrotate does.
func TestHangup(t *testing.T) {
	p := serve(t, "-v", "-l", "log")
	c := dial(t, p.socket())
	c.ping()
	path := filepath.Join(p.dir, "log")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	c.ping()
	if _, err := os.Stat(path); err == nil {
		t.Error("there is a new log before anybody asked for it")
	}
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { _, err := os.Stat(path); return err })
	eventually(t, func() error { // the file is there before it is the log
		c.ping() // the same connection
		if log, err := os.ReadFile(path); err != nil || !bytes.Contains(log, []byte("guest-ping called")) {
			return fmt.Errorf("the new log is %q, %v", log, err)
		}
		return nil
	})

	p = serve(t) // and without a log
	c = dial(t, p.socket())
	for range 3 {
		if err := p.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		c.ping()
	}
}

func TestDaemonize(t *testing.T) {
	p := command(t, "-d", "-f", "pid", "-l", "log", "-m", "unix-listen", "-p", "sock")
	p.start(t)
	if status := p.wait(t); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	// The parent ends when the daemon serves, not earlier.
	pidFile := filepath.Join(p.dir, "pid")
	data, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscanf(string(data), "%d\n", &pid); err != nil || pid == p.Process.Pid {
		t.Fatalf("pid file %q, parent %d, %v", data, p.Process.Pid, err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it should be gone
	c := dial(t, p.socket())
	c.ping()
	if got := c.run("pwd; umask; ls -l /proc/$PPID/fd/0 /proc/$PPID/fd/1 /proc/$PPID/fd/2 | sed 's/.*-> //'"); got !=
		"/\n0077\n/dev/null\n/dev/null\n/dev/null\n" {
		t.Errorf("the daemon's directory, umask and standard streams are %q", got)
	}
	if sid, err := sessionOf(pid); err != nil || sid != pid {
		t.Errorf("session %d, %v, want one of its own, %d", sid, err, pid)
	}

	// Its directory is another one now, but the log is where it was.
	log := filepath.Join(p.dir, "log")
	if err := errors.Join(os.Remove(log), syscall.Kill(pid, syscall.SIGHUP)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { _, err := os.Stat(log); return err })

	second := command(t, "-d", "-f", pidFile, "-m", "unix-listen", "-p", "sock")
	second.start(t)
	if status := second.wait(t); status != 1 || !strings.Contains(second.stderr.String(), "Cannot lock pid file: Resource temporarily unavailable") {
		t.Errorf("second instance: exit status %d, %s", status, &second.stderr)
	}
	third := command(t, "-d", "-f", pidFile, "-D")
	third.start(t)
	third.wait(t)
	if again, err := os.ReadFile(pidFile); err != nil || !bytes.Equal(again, data) {
		t.Errorf("the pid file is %q, %v, want %q", again, err, data)
	}

	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if _, err := os.Stat(pidFile); err == nil {
			return errors.New("the pid file is not removed")
		}
		return nil
	})
}

// sessionOf returns the session of a process.
func sessionOf(pid int) (sid int, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		var state string
		var parent, group int
		_, err = fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &parent, &group, &sid)
	}
	return sid, err
}

// TestThreads looks at how the kernel schedules the agent: the thread by which the
// runtime watches the others is not to interrupt them, and nothing that the agent
// starts is to take after it.
func TestThreads(t *testing.T) {
	const other, batch = 0, 3 // of linux/sched.h
	if p, _, _ := unix.Syscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0); p != other {
		t.Skipf("the test runs under policy %d", p)
	}
	p := serve(t)
	c := dial(t, p.socket())
	c.ping()
	threads := func() []string {
		t.Helper()
		tasks, err := os.Open(fmt.Sprintf("/proc/%d/task", p.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		defer tasks.Close()
		names, err := tasks.Readdirnames(-1) // the oldest first
		if err != nil || len(names) < 2 {
			t.Fatal(names, err)
		}
		return names
	}
	policy := func(thread string, set ...uintptr) uintptr {
		t.Helper()
		tid, err := strconv.Atoi(thread)
		if err != nil {
			t.Fatal(err)
		}
		for _, policy := range set {
			var param [4]byte
			if _, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(tid), policy, uintptr(unsafe.Pointer(&param))); errno != 0 {
				t.Fatal(errno)
			}
		}
		got, _, errno := unix.Syscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(tid), 0, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		return got
	}
	for i, want := range []uintptr{other, batch} {
		if got := policy(threads()[i]); got != want {
			t.Errorf("thread %d has policy %d, want %d", i, got, want)
		}
	}

	// As if all had been started by that thread.
	for _, thread := range threads() {
		policy(thread, batch)
	}
	c.ping()
	if !slices.ContainsFunc(threads(), func(thread string) bool { return policy(thread) == other }) {
		t.Error("the thread that has served is not as it was")
	}
	if got := strings.TrimSpace(c.run(`sed "s/.*) //" /proc/self/stat | cut -d " " -f 39`)); got != fmt.Sprint(other) {
		t.Errorf("policy %q of a command", got)
	}
}

// TestLog checks what is logged and, more so, what is not.
func TestLog(t *testing.T) {
	// The words stand in for passwords; the second is the first in base64.
	const secret, encoded = "s3cret-Passw0rd!", "czNjcmV0LVBhc3N3MHJkIQ=="
	requests := func(p *process) {
		c := dial(t, p.socket())
		c.ping()
		c.ask(`{"execute":"guest-set-user-password","arguments":{"username":"nobody-%s","password":"%s","crypted":"wrong"}}`, secret, encoded)
		c.ask(`{"execute":"guest-exec","arguments":{"path":"true","input-data":"%s","env":["TOKEN=%s"]}}`, encoded, secret)
		c.ask(`{"execute":"no-such-command","arguments":{"password":"%s"}}`, encoded)
		c.ask(`{"execute":"guest-file-write","arguments":{"handle":1,"buf-b64":"%s"}}`, encoded)
		c.ask("{%s}", encoded)
	}
	verbose := serve(t, "-v", "-l", "log")
	requests(verbose)
	log, err := os.ReadFile(filepath.Join(verbose.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{": debug: guest-ping called\n", ": debug: guest-exec called"} {
		if !bytes.Contains(log, []byte(want)) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	for line := range strings.Lines(string(log)) {
		var seconds, micro int
		var level string
		if _, err := fmt.Sscanf(line, "%d.%06d: %s", &seconds, &micro, &level); err != nil {
			t.Errorf("not a line of the log: %q", line)
		}
	}
	for _, word := range []string{secret, encoded, encoded[:8], secret[:8]} {
		if bytes.Contains(log, []byte(word)) {
			t.Errorf("the log has %q:\n%s", word, log)
		}
	}

	silent := serve(t, "-l", "log")
	requests(silent)
	if log, err := os.ReadFile(filepath.Join(silent.dir, "log")); err != nil || len(log) != 0 {
		t.Errorf("without -v the log is %q, %v", log, err)
	}
}
