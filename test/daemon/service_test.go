//go:build linux

package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// datagrams listens on a datagram socket at path.
func datagrams(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNotify(t *testing.T) {
	p := command(t, "-m", "unix-listen", "-p", "sock")
	manager := datagrams(t, filepath.Join(p.dir, "notify"))
	p.Env = append(p.Env, "NOTIFY_SOCKET="+filepath.Join(p.dir, "notify"), "WATCHDOG_USEC=200000")
	p.start(t)
	if got := receive(t, manager); got != "READY=1" {
		t.Errorf("got %q, want READY=1", got)
	}
	dial(t, p.socket()).ping() // at the first try: it is ready
	// Whoever is too slow is so each time; the machine may be now and then.
	var took time.Duration
	for range 5 {
		begin := time.Now()
		for range 5 {
			if got := receive(t, manager); got != "WATCHDOG=1" {
				t.Errorf("got %q, want WATCHDOG=1", got)
			}
		}
		if took = time.Since(begin); took <= 5*200*time.Millisecond {
			break
		}
	}
	if took > 5*200*time.Millisecond {
		t.Errorf("five signs of life took %v, one is due each 200 ms", took)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for {
		got := receive(t, manager)
		if got == "STOPPING=1" {
			break
		}
		if got != "WATCHDOG=1" {
			t.Fatalf("got %q, want STOPPING=1", got)
		}
	}
	if status := p.wait(t); status != 0 {
		t.Errorf("exit status %d", status)
	}

	// A manager that is gone, and one that does not listen, are no obstacles.
	p = command(t, "-m", "unix-listen", "-p", "sock")
	p.Env = append(p.Env, "NOTIFY_SOCKET="+filepath.Join(p.dir, "none"))
	p.start(t)
	p.awaitSocket(t)
}

// activated is an agent that is given sockets as a service manager does it. The
// shell is there to tell it its process id; owner is what it tells.
func activated(t *testing.T, owner string, files []*os.File, args ...string) *process {
	t.Helper()
	p := command(t, args...)
	p.Path = "/bin/sh"
	p.Args = append([]string{"sh", "-c", "LISTEN_PID=" + owner + ` exec "$@"`, "sh", program}, p.Args[1:]...)
	p.Env = append(p.Env, fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES=qga")
	p.ExtraFiles = files
	return p
}

// listeningSocket returns a socket that listens at path.
func listeningSocket(t *testing.T, path string) *os.File {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestSocketActivation(t *testing.T) {
	dir := tempDir(t)
	path := filepath.Join(dir, "activated")
	socket := listeningSocket(t, path)

	// Options that would fail are not looked at.
	p := activated(t, "$$", []*os.File{socket}, "-m", "virtio-serial", "-p", "/nonexistent")
	p.start(t)
	c := dial(t, path)
	c.ping()
	if got := c.run("env | grep LISTEN; ls /proc/self/fd | wc -l"); got != "4\n" { // the fourth is ls's own
		t.Errorf("a program has of it all %q", got)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(t); status != 0 {
		t.Errorf("exit status %d", status)
	}

	// The daemon is another process than the one that was addressed.
	p = activated(t, "$$", []*os.File{socket}, "-d", "-f", "pid")
	p.start(t)
	if status := p.wait(t); status != 0 {
		t.Errorf("with -d: exit status %d", status)
	}
	dial(t, path).ping()
	var pid int
	if data, err := os.ReadFile(filepath.Join(p.dir, "pid")); err != nil {
		t.Error(err)
	} else if _, err := fmt.Sscan(string(data), &pid); err != nil {
		t.Error(err)
	} else if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Error(err)
	}

	for _, tt := range []struct {
		name, owner string
		files       []*os.File
		want        string
	}{
		{"two sockets", "$$", []*os.File{socket, socket}, "qemu-ga only supports listening on one socket"},
		{"no socket", "$$", []*os.File{os.Stdin}, "unsupported listen fd type"},
		{"addressed to another", "1", []*os.File{socket}, "error opening channel '/nonexistent'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := activated(t, tt.owner, tt.files, "-p", "/nonexistent")
			p.start(t)
			if status := p.wait(t); status != 1 || !strings.Contains(p.stderr.String(), tt.want) {
				t.Errorf("exit status %d, %s, want 1 and %q", status, &p.stderr, tt.want)
			}
		})
	}
}

func TestUnixListen(t *testing.T) {
	// What an agent leaves behind that was killed.
	p := command(t, "-m", "unix-listen", "-p", "sock")
	stale, err := net.Listen("unix", p.socket())
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	p.start(t)
	p.awaitSocket(t)

	// A client that only connects, one that sends half a request, one that
	// does not read its replies: they are nobody else's business.
	dial(t, p.socket())
	dial(t, p.socket()).send(`{"execute":"guest-`)
	big := filepath.Join(p.dir, "big")
	if err := os.WriteFile(big, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var handle, other int
	deaf := dial(t, p.socket())
	deaf.call(&handle, `{"execute":"guest-file-open","arguments":{"path":"%s"}}`, big)
	deaf.call(&other, `{"execute":"guest-file-open","arguments":{"path":"%s"}}`, big)
	deaf.send(`{"execute":"guest-file-read","arguments":{"handle":%d,"count":%d}}`, handle, 32<<20)

	clients := make([]*client, 20)
	for i := range clients {
		clients[i] = dial(t, p.socket())
		clients[i].ping()
	}
	// Handles are the agent's, not the connection's, and so are processes.
	last := clients[len(clients)-1]
	var r struct{ Count int }
	last.call(&r, `{"execute":"guest-file-read","arguments":{"handle":%d,"count":10}}`, other)
	if r.Count != 10 {
		t.Errorf("read %d bytes of another client's file, want 10", r.Count)
	}
	var started struct{ PID int }
	clients[0].call(&started, `{"execute":"guest-exec","arguments":{"path":"true"}}`)
	clients[0].Close()
	eventually(t, func() error {
		var status struct{ Exited bool }
		if last.call(&status, `{"execute":"guest-exec-status","arguments":{"pid":%d}}`, started.PID); !status.Exited {
			return errors.New("the program does not end")
		}
		return nil
	})
	// Once its client is gone, the file of the large read is free again.
	deaf.Close()
	last.call(&struct{}{}, `{"execute":"guest-file-close","arguments":{"handle":%d}}`, handle)
	last.call(&struct{}{}, `{"execute":"guest-file-close","arguments":{"handle":%d}}`, other)
	eventually(t, func() error { // the reply to the one who left may take a moment to end
		if got := last.run("ls -l /proc/$PPID/fd | grep -c big; true"); got != "0\n" {
			return fmt.Errorf("the agent has the file open %s times", got)
		}
		return nil
	})
	// Whoever closes only his sending side gets his reply.
	half := dial(t, p.socket())
	half.send(`{"execute":"guest-ping"}`)
	if err := half.ReadWriteCloser.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if line, err := half.r.ReadString('\n'); line != "{\"return\": {}}\n" {
		t.Errorf("half closed: %q, %v", line, err)
	}
	// A reset, which ends the C agent.
	reset := dial(t, p.socket())
	reset.ping()
	reset.send(`{"execute":"guest-info"}`)
	time.Sleep(50 * time.Millisecond) // its reply lies there unread
	reset.Close()
	last.ping()
}

func TestRetryPath(t *testing.T) {
	p := command(t, "--retry-path", "-m", "unix-listen", "-p", "later/sock")
	p.start(t)
	time.Sleep(1500 * time.Millisecond)
	// Once a second, and each time threads of the runtime have a look, the more
	// the busier the machine is. A loop without a pause would be thousands, each
	// time.
	n := 0
	for range 3 {
		before := switches(t, p)
		time.Sleep(3 * time.Second)
		if n = switches(t, p) - before; n <= 3*50 {
			break
		}
	}
	if n > 3*50 {
		t.Errorf("while waiting for its path the agent got a processor %d times in 3 s", n)
	}
	if err := os.Mkdir(filepath.Join(p.dir, "later"), 0o700); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	eventually(t, func() error {
		_, err := os.Stat(filepath.Join(p.dir, "later", "sock"))
		return err
	})
	if d := time.Since(begin); d > 10*time.Second { // it should be one
		t.Errorf("the path was noticed after %v", d)
	}
	dial(t, filepath.Join(p.dir, "later", "sock")).ping()
}

// switches returns how often the threads of an agent got a processor.
func switches(t *testing.T, p *process) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Process.Pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(data)) {
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
				var m int
				if _, err := fmt.Sscan(value, &m); err != nil {
					t.Fatal(err)
				}
				n += m
			}
		}
	}
	return n
}

// openTerminal returns a pair of terminals, for the two ends of a line.
func openTerminal(t *testing.T) (*os.File, string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "terminal")
	t.Cleanup(func() { f.Close() })
	return f, fmt.Sprint("/dev/pts/", n)
}

// TestSerialHangup lets a serial line hang up, which to the C agent is the end.
func TestSerialHangup(t *testing.T) {
	p := command(t, "-m", "isa-serial", "-p", "line")
	for i := range 3 {
		ours, theirs := openTerminal(t)
		next := filepath.Join(p.dir, "next")
		if err := errors.Join(os.Symlink(theirs, next), os.Rename(next, filepath.Join(p.dir, "line"))); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			p.start(t)
		}
		if err := ours.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		// It may take a second to be opened.
		eventually(t, func() error {
			if raw, err := isRaw(theirs); err != nil || !raw {
				return fmt.Errorf("%s is not raw, %v", theirs, err)
			}
			return nil
		})
		newClient(t, ours).ping()
		ours.Close()
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func isRaw(path string) (bool, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	termios, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil && termios.Lflag == 0 && termios.Oflag == 0, err
}

// TestPrograms checks what programs inherit from the agent, and what not.
func TestPrograms(t *testing.T) {
	p := command(t, "-m", "unix-listen", "-p", "sock", "-l", "log")
	manager := datagrams(t, filepath.Join(p.dir, "notify"))
	p.Env = append(p.Env, "NOTIFY_SOCKET="+filepath.Join(p.dir, "notify"), "WATCHDOG_USEC=60000000",
		"LISTEN_PID=1", "LISTEN_FDS=1", "GOMAXPROCS=2", "MEANT=for them")
	extra, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	p.ExtraFiles = []*os.File{extra, extra} // as a careless parent leaves them open
	p.start(t)
	receive(t, manager)

	c := dial(t, p.socket())
	dial(t, p.socket())
	var handle int
	c.call(&handle, `{"execute":"guest-file-open","arguments":{"path":"/etc/passwd"}}`)
	env := c.run("env")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "GOMAXPROCS", "BELLHOP_"} {
		if strings.Contains(env, name) {
			t.Errorf("programs find %s in their environment:\n%s", name, env)
		}
	}
	if !strings.Contains(env, "MEANT=for them\n") {
		t.Errorf("programs lack what was meant for them:\n%s", env)
	}
	if got := c.run("ls /proc/self/fd | wc -l"); got != "4\n" { // the fourth is ls's own
		t.Errorf("programs have %s descriptors, want three and one", got)
	}
	got := c.run("grep -e SigBlk -e SigIgn /proc/self/status")
	// The C library's posix_spawn, by which make starts the tests, leaves
	// signal 32, its own, ignored; nobody undoes that.
	got = strings.Replace(got, "0000000080000000", "0000000000000000", 1)
	if got != "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n" {
		t.Errorf("signals of programs: %q", got)
	}
}

// TestAccounting reads what the agent tells syslog, which it does whatever its
// own log is set to. The syslog is in a file system of its own.
func TestAccounting(t *testing.T) {
	p := command(t, "-m", "unix-listen", "-p", "sock")
	dev := filepath.Join(p.dir, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dev, "null"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	syslog := datagrams(t, filepath.Join(dev, "log"))
	p.Path = "/bin/sh"
	p.Args = append([]string{
		"sh", "-c", `mount --bind /dev/null "$0/null" && mount --rbind "$0" /dev && exec "$@"`, dev, program,
	}, p.Args[1:]...)
	p.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		p.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		p.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	}
	if _, err := exec.LookPath("mount"); err != nil {
		t.Skip(err)
	}
	if err := p.Start(); errors.Is(err, syscall.EPERM) {
		t.Skipf("no mount namespaces here: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { _ = p.Process.Kill(); <-p.ended })
	p.awaitSocket(t)

	c := dial(t, p.socket())
	var handle int
	var started struct{ PID int }
	c.call(&handle, `{"execute":"guest-file-open","arguments":{"path":"/etc/passwd"}}`)
	c.call(&struct{}{}, `{"execute":"guest-file-close","arguments":{"handle":%d}}`, handle)
	c.call(&started, `{"execute":"guest-exec","arguments":{"path":"true","arg":["a","b c"],"env":["PATH=/bin:/usr/bin","SECRET=s3cret"],"input-data":"czNjcmV0"}}`)
	for _, want := range []string{
		"guest-file-open called, filepath: /etc/passwd, mode: r",
		fmt.Sprintf("guest-file-open, handle: %d", handle),
		fmt.Sprintf("guest-file-close called, handle: %d", handle),
		`guest-exec called: "true a b c"`,
	} {
		got := receive(t, syslog)
		if !strings.HasPrefix(got, "<14>") || !strings.HasSuffix(got, " qemu-ga: info: "+want) {
			t.Errorf("syslog got %q, want %q", got, want)
		}
	}
	if p.stderr.Len() > 0 {
		t.Errorf("standard error got %q", &p.stderr)
	}
}
