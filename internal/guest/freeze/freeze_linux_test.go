package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/mounts"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/state"
	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
)

// TestMain lets this program be the guard that its tests start, and the agents
// that they kill.
func TestMain(m *testing.M) {
	BeGuard()
	if dir := os.Getenv("FREEZE_TEST_AGENT"); dir != "" {
		os.Exit(doomedAgent(dir))
	}
	os.Exit(m.Run())
}

// A machine is a guest whose only file systems are loop devices of ours.
type machine struct {
	*Freezer
	dir    string
	points []string
	log    *lines
}

// lines is a log.
type lines struct {
	text   []string
	before func() // is called before each, unless nil
}

func (l *lines) Write(_ time.Time, _ logging.Level, text []byte) bool {
	if l.before != nil {
		l.before()
	}
	l.text = append(l.text, string(text))
	return true
}
func (l *lines) Reopen() error { return nil }
func (l *lines) Close() error  { return nil }

// newMachine mounts n file systems and returns a machine of them.
func newMachine(t *testing.T, n int, change ...func(*Config)) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may freeze")
	}
	m := &machine{dir: t.TempDir()}
	for i := range n {
		m.points = append(m.points, mountLoop(t, filepath.Join(m.dir, strconv.Itoa(i))))
	}
	m.Freezer, m.log = newFreezer(m.dir, false, change...)
	m.list(t)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func newFreezer(dir string, wasFrozen bool, change ...func(*Config)) (*Freezer, *lines) {
	log := &lines{}
	c := Config{
		Root:       root.Dir(dir),
		StateDir:   dir,
		Timeout:    time.Minute,
		MountLimit: 20 * time.Second,
		Limit:      30 * time.Second,
		Log:        logging.New(log, logging.Discard, true),
	}
	for _, f := range change {
		f(&c)
	}
	return New(c, wasFrozen), log
}

// list writes the list of mounts that the Freezer sees.
func (m *machine) list(t *testing.T) {
	t.Helper()
	all, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var ours strings.Builder
	for line := range strings.Lines(string(all)) {
		if strings.Contains(line, " "+m.dir+"/") {
			ours.WriteString(line)
		}
	}
	writeFile(t, filepath.Join(m.dir, "proc/self/mountinfo"), ours.String())
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// mountLoop makes a file system in a file and mounts it.
func mountLoop(t *testing.T, dir string) string {
	t.Helper()
	image := dir + ".img"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		mkfs = "/sbin/mkfs.ext4"
	}
	for _, args := range [][]string{{mkfs, "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%q: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		// Whatever a test left behind, what it has frozen must not stay so.
		if fd, err := open(dir); err == nil {
			_, _ = thaw(&running, fd)
			unix.Close(fd)
		}
		eventually(t, func() error {
			return os.NewSyscallError("umount", unix.Unmount(dir, 0))
		})
	})
	return dir
}

// eventually tries until there is no error any more, and returns whether that came.
func eventually(t *testing.T, try func() error) bool {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return true
		}
	}
	t.Error(err)
	return false
}

// frozen reports whether writing to a file system waits. It asks the kernel by
// a freeze of its own.
func frozen(t *testing.T, dir string) bool {
	t.Helper()
	fd, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	switch err := running.freeze(fd); err {
	case nil:
		if err := running.thaw(fd); err != nil && err != unix.EINVAL { // the guard was faster
			t.Error(err)
		}
		return false
	case unix.EBUSY:
		return true
	default:
		t.Fatal(err)
		return false
	}
}

// check checks which file systems are frozen, and that status and mark agree.
func (m *machine) check(t *testing.T, want ...bool) {
	t.Helper()
	for i, point := range m.points {
		if got := frozen(t, point); got != want[i] {
			t.Errorf("file system %d: frozen %v, want %v", i, got, want[i])
		}
	}
	all := slices.Contains(want, true)
	status, _ := m.status(t.Context(), qga.Empty{})
	if (status == qga.Frozen) != all || m.Frozen() != all {
		t.Errorf("status %v with %v", status, want)
	}
	if marked, err := state.Frozen(m.dir); marked != all || err != nil {
		t.Errorf("marked %v, %v, with %v", marked, err, want)
	}
}

func (m *machine) freezeAll(t *testing.T, want int64) {
	t.Helper()
	if n, err := m.freeze(t.Context(), &qga.FSFreezeFreeze.Info, listed(nil)); n != want || err != nil {
		t.Fatalf("freeze: got %d, %v, want %d", n, err, want)
	}
}

func (m *machine) thawAll(t *testing.T, want int64) {
	t.Helper()
	if n, err := m.thaw(t.Context()); n != want || err != nil {
		t.Errorf("thaw: got %d, %v, want %d", n, err, want)
	}
}

func TestFreezeAndThaw(t *testing.T) {
	var calls []string
	m := newMachine(t, 2, func(c *Config) {
		c.Before = func(context.Context) error { calls = append(calls, "before"); return nil }
		c.After = func(context.Context) error { calls = append(calls, "after"); return nil }
	})
	m.check(t, false, false)
	m.thawAll(t, 0)
	for range 3 {
		m.freezeAll(t, 2)
		m.check(t, true, true)
		_, err := m.freeze(t.Context(), &qga.FSFreezeFreezeList.Info, listed(nil))
		if e, ok := errors.AsType[*qga.Error](err); !ok || e.Class != qga.CommandNotFound {
			t.Errorf("second freeze: got %v", err)
		}
		if err := unix.Unmount(m.points[0], 0); err != unix.EBUSY {
			t.Errorf("unmounting what is frozen: got %v, want %v", err, unix.EBUSY)
		}
		m.thawAll(t, 2)
		m.check(t, false, false)
		m.thawAll(t, 0)
	}
	want := slices.Repeat([]string{"before", "after", "after"}, 3)
	if !slices.Equal(calls[1:], want) || calls[0] != "after" {
		t.Errorf("hooks: got %q", calls)
	}
}

func TestFreezeList(t *testing.T) {
	m := newMachine(t, 3, func(c *Config) { c.Exclude = []string{c.StateDir + "/1"} })
	for _, tt := range []struct {
		name   string
		list   []string
		want   int64
		frozen []bool
	}{
		{"all", nil, 2, []bool{true, false, true}},
		{"none", []string{}, 0, []bool{false, false, false}},
		{"one", []string{m.points[2], "/nowhere", m.points[2] + "/"}, 1, []bool{false, false, true}},
		{"excluded", []string{m.points[1]}, 0, []bool{false, false, false}},
	} {
		n, err := m.freeze(t.Context(), &qga.FSFreezeFreezeList.Info, listed(tt.list))
		if n != tt.want || err != nil {
			t.Errorf("%s: got %d, %v, want %d", tt.name, n, err, tt.want)
		}
		m.check(t, tt.frozen...)
		m.thawAll(t, tt.want)
	}
}

// What others froze before is not counted by the freeze, but thawed with the
// rest, however often they did.
func TestFrozenByOthers(t *testing.T) {
	m := newMachine(t, 2)
	fd, err := open(m.points[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := running.freeze(fd); err != nil {
		t.Fatal(err)
	}
	m.freezeAll(t, 1)
	m.check(t, true, true)
	m.thawAll(t, 2)
	m.check(t, false, false)

	// Theirs does not make up for ours that has thawed meanwhile.
	if err := running.freeze(fd); err != nil {
		t.Fatal(err)
	}
	m.freezeAll(t, 1)
	ours, err := open(m.points[1])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ours)
	if err := running.thaw(ours); err != nil {
		t.Fatal(err)
	}
	m.thawAll(t, 0)
	m.check(t, false, false)

	// A freeze that fails, or has nothing to do, leaves theirs alone.
	if err := running.freeze(fd); err != nil {
		t.Fatal(err)
	}
	freeze := m.kernel.freeze
	for _, tt := range []struct {
		list []string
		err  error
	}{{m.points[:1], nil}, {m.points, unix.EIO}} {
		m.kernel.freeze = func(fd int) error {
			if err := freeze(fd); err != nil {
				return err
			}
			if tt.err != nil {
				_ = running.thaw(fd)
			}
			return tt.err
		}
		n, err := m.freeze(t.Context(), &qga.FSFreezeFreezeList.Info, listed(tt.list))
		if n != 0 || !errors.Is(err, tt.err) {
			t.Errorf("freeze: got %d, %v, want %v", n, err, tt.err)
		}
		if !frozen(t, m.points[0]) || m.Frozen() {
			t.Errorf("after %d, %v: what others froze has thawed, or we are frozen: %v", n, err, m.Frozen())
		}
	}
	m.kernel.freeze = freeze
	m.thawAll(t, 1)
	m.check(t, false, false)
}

// One file system that cannot be opened does not keep another one frozen.
func TestDeadAmongOthers(t *testing.T) {
	m := newMachine(t, 2)
	fd, err := open(m.points[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := running.freeze(fd); err != nil {
		t.Fatal(err)
	}
	begun, answer := make(chan struct{}), make(chan struct{})
	defer close(answer)
	go m.probes.Do(m.points[1], time.Hour, func() (struct{}, error) { // comes first
		close(begun)
		<-answer
		return struct{}{}, nil
	})
	<-begun
	m.thawAll(t, 1)
	m.check(t, false, false)
}

// Lazily unmounted, a frozen file system has no path any more.
func TestUnmountedMeanwhile(t *testing.T) {
	m := newMachine(t, 1)
	m.freezeAll(t, 1)
	fd, err := open(m.points[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Unmount(m.points[0], unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	m.list(t)
	m.thawAll(t, 1)
	if err := running.thaw(fd); err != unix.EINVAL {
		t.Errorf("still frozen: %v", err)
	}
	unix.Close(fd)
	eventually(t, func() error {
		out, err := exec.Command("mount", "-o", "loop", m.points[0]+".img", m.points[0]).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// TestUnmountedAfterwards unmounts at once what was thawed. The guard holds it a
// moment longer, for which a thaw waits, unless the machine is too busy.
func TestUnmountedAfterwards(t *testing.T) {
	m := newMachine(t, 1)
	const times = 10
	busy := 0
	for range times {
		m.freezeAll(t, 1)
		m.thawAll(t, 1)
		err := unix.Unmount(m.points[0], 0)
		if err == unix.EBUSY {
			busy++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mount", "-o", "loop", m.points[0]+".img", m.points[0]).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m.list(t)
	}
	if busy > times/2 {
		t.Errorf("busy after %d of %d thaws", busy, times)
	}
}

func TestHidden(t *testing.T) {
	m := newMachine(t, 1)
	if err := unix.Mount("none", m.points[0], "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	m.freezeAll(t, 0)
	if err := unix.Unmount(m.points[0], 0); err != nil {
		t.Fatal(err)
	}
	m.check(t, false)
	if text := strings.Join(m.log.text, "\n"); !strings.Contains(text, m.points[0]+" is not frozen: hidden by another mount") {
		t.Errorf("log:\n%s", text)
	}
}

func TestHooksThatFail(t *testing.T) {
	failure := errors.New("no")
	for _, tt := range []struct {
		name          string
		before, after error
	}{{"before", failure, nil}, {"after", nil, failure}} {
		m := newMachine(t, 1, func(c *Config) {
			c.Before = func(context.Context) error { return tt.before }
			c.After = func(context.Context) error { return tt.after }
		})
		_, err := m.freeze(t.Context(), &qga.FSFreezeFreeze.Info, listed(nil))
		if err != tt.before {
			t.Errorf("%s: freeze: got %v", tt.name, err)
		}
		m.check(t, tt.before == nil)
		if n, err := m.thaw(t.Context()); !errors.Is(err, tt.after) || (n == 1) != (tt.before == nil) {
			t.Errorf("%s: thaw: got %d, %v", tt.name, n, err)
		}
		m.check(t, false)
	}
}

func TestWatchdog(t *testing.T) {
	told := make(chan struct{}, 1)
	m := newMachine(t, 2, func(c *Config) {
		c.Timeout = 300 * time.Millisecond
		c.After = func(context.Context) error { told <- struct{}{}; return nil }
	})
	m.freezeAll(t, 2)
	<-told
	m.check(t, false, false)
	m.thawAll(t, 0)
	<-told
	m.Timeout = time.Minute
	m.freezeAll(t, 2)
	m.thawAll(t, 2)
	m.mu.Lock()
	defer m.mu.Unlock()
	if text := strings.Join(m.log.text, "\n"); strings.Count(text, "the freeze has lasted 300ms") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

// Whatever ends the guard, or has it thaw, the freeze does not go on without one.
func TestGuardKilled(t *testing.T) {
	m := newMachine(t, 1)
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		m.freezeAll(t, 1)
		_, pid := guardOf(t, os.Getpid())
		if err := unix.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if m.Frozen() {
				return fmt.Errorf("still frozen after %v", signal)
			}
			return nil
		})
		m.check(t, false)
	}
	m.freezeAll(t, 1)
	m.thawAll(t, 1)
}

// guardOf returns a process's guard, once it is set up.
func guardOf(t *testing.T, parent int) (name string, pid int) {
	t.Helper()
	if !eventually(t, func() (err error) {
		name, pid, err = findGuard(parent)
		return err
	}) {
		t.FailNow() // a signal to process 0 would be one to ourselves
	}
	return name, pid
}

func findGuard(parent int) (name string, pid int, err error) {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", parent))
	if err != nil {
		return "", 0, err
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, task := range tasks {
		more, _ := os.ReadFile(task)
		children = append(children, more...)
	}
	for child := range strings.FieldsSeq(string(children)) {
		comm, _ := os.ReadFile("/proc/" + child + "/comm")
		if name = strings.TrimSpace(string(comm)); name == "qemu-ga-guard" {
			pid, err = strconv.Atoi(child)
			return name, pid, err
		}
	}
	return "", 0, errors.New("there is no guard")
}

// The guard thaws again and again. A file system that does not answer must not
// cost a thread each time.
func TestGuardAsksTheDeadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead, alive atomic.Int32
		answer := make(chan struct{})
		k := kernel{thaw: func(fd int) error {
			if fd == 1 {
				dead.Add(1)
				<-answer
			} else {
				alive.Add(1)
			}
			return unix.EINVAL
		}}
		volumes := []*volume{{fd: 1}, {fd: 2}}
		for range 3 {
			thawAll(volumes, &k)
		}
		close(answer)
		synctest.Wait()
		if dead.Load() != 1 || alive.Load() != 3 {
			t.Errorf("asked the dead %d times, the other %d times", dead.Load(), alive.Load())
		}
	})
}

// A guard that stood still has missed that it was dismissed, and its time to thaw
// has come. It must not thaw the freeze after that.
func TestGuardLate(t *testing.T) {
	m := newMachine(t, 1)
	var pid int
	for _, timeout := range []time.Duration{100 * time.Millisecond, 5 * time.Second, 30 * time.Second} {
		m.Timeout = timeout
		m.freezeAll(t, 1)
		for pid = 0; pid == 0 && m.Frozen(); {
			_, pid, _ = findGuard(os.Getpid())
		}
		if pid == 0 {
			continue // the time was up before
		}
		if err := unix.Kill(pid, unix.SIGSTOP); err == nil && m.Frozen() {
			break
		}
		_ = unix.Kill(pid, unix.SIGCONT)
		pid = 0
	}
	if pid == 0 {
		t.Fatal("no guard could be stopped in time")
	}
	eventually(t, func() error {
		if m.Frozen() {
			return errors.New("still frozen")
		}
		return nil
	})
	// Such a guard is killed: it would be in the way of all freezes to come.
	m.Timeout = time.Minute
	eventually(t, func() error {
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			return fmt.Errorf("the guard is still there: %v", err)
		}
		return nil
	})
	m.freezeAll(t, 1)
	m.check(t, true)
	m.thawAll(t, 1)
}

func TestGuardIsOutOfReach(t *testing.T) {
	m := newMachine(t, 1)
	m.freezeAll(t, 1)
	_, pid := guardOf(t, os.Getpid())
	for file, want := range map[string]string{"oom_score_adj": lowestScore(t), "cmdline": guardName + "\x001\x00"} {
		got, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if string(got) != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", file, got, err, want)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || strings.Contains(string(status), "VmLck:\t       0 kB") {
		t.Errorf("its memory is not locked: %v\n%s", err, status)
	}
	m.thawAll(t, 1)
	eventually(t, func() error {
		if unix.Kill(pid, 0) == nil {
			return errors.New("the guard is still there after the thaw")
		}
		return nil
	})
}

// lowestScore is what a process gets that wants to be killed last. Containers may
// not grant it.
func lowestScore(t *testing.T) string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, effective, _ := strings.Cut(string(status), "CapEff:\t")
	caps, err := strconv.ParseUint(effective[:16], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	if caps&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		return "0\n"
	}
	return "-1000\n"
}

// doomedAgent is a process that freezes and waits for its end.
func doomedAgent(dir string) int {
	timeout, _ := time.ParseDuration(os.Getenv("FREEZE_TEST_TIMEOUT"))
	f, _ := newFreezer(dir, false, func(c *Config) { c.Timeout = timeout })
	n, err := f.freeze(context.Background(), &qga.FSFreezeFreeze.Info, listed(nil))
	fmt.Println(n, err)
	select {}
}

// startDoomed runs doomedAgent until it has frozen what there is. That thaws again
// after the timeout, unless it is 0.
func (m *machine) startDoomed(t *testing.T, timeout time.Duration) *os.Process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FREEZE_TEST_AGENT="+m.dir, "FREEZE_TEST_TIMEOUT="+timeout.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var n int
	var failure string
	if _, err := fmt.Fscan(out, &n, &failure); err != nil || n != len(m.points) || failure != "<nil>" {
		t.Fatalf("agent froze %d: %s, %v", n, failure, err)
	}
	if timeout == 0 && !m.allFrozen(t) {
		t.Fatal("not all is frozen")
	}
	return cmd.Process
}

func (m *machine) allFrozen(t *testing.T) bool {
	t.Helper()
	return !slices.ContainsFunc(m.points, func(point string) bool { return !frozen(t, point) })
}

func (m *machine) awaitThaw(t *testing.T) {
	t.Helper()
	for _, point := range m.points {
		eventually(t, func() error {
			if frozen(t, point) {
				return errors.New(point + " is still frozen")
			}
			return nil
		})
	}
}

func TestAgentKilled(t *testing.T) {
	m := newMachine(t, 2)
	agent := m.startDoomed(t, 0)
	if err := agent.Kill(); err != nil {
		t.Fatal(err)
	}
	m.awaitThaw(t)
	if marked, err := state.Frozen(m.dir); !marked || err != nil {
		t.Errorf("marked %v, %v", marked, err)
	}
	// The next agent.
	f, _ := newFreezer(m.dir, true)
	m.Freezer = f
	if err := f.Resume(); err != nil {
		t.Error(err)
	}
	m.check(t, false, false)
	m.thawAll(t, 0)
	m.freezeAll(t, 2)
	m.thawAll(t, 2)
}

func TestAgentStopped(t *testing.T) {
	m := newMachine(t, 2)
	var agent *os.Process
	for _, timeout := range []time.Duration{time.Second, 10 * time.Second, 30 * time.Second} {
		agent = m.startDoomed(t, timeout)
		if err := agent.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if m.allFrozen(t) {
			break
		}
		// It may have thawed by itself before.
		if timeout == 30*time.Second {
			t.Fatal("the agent could not be stopped in time")
		}
		m.awaitThaw(t)
		if err := agent.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	m.awaitThaw(t)
	if err := agent.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if marked, err := state.Frozen(m.dir); marked || err != nil {
			return fmt.Errorf("marked %v, %w", marked, err)
		}
		return nil
	})
}

// Both are killed, as by the end of their control group: the next agent thaws.
func TestAllKilled(t *testing.T) {
	m := newMachine(t, 2)
	agent := m.startDoomed(t, 0)
	_, guard := guardOf(t, agent.Pid)
	if err := unix.Kill(guard, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := agent.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(guard, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, point := range m.points {
		if !frozen(t, point) {
			t.Errorf("%s has thawed by itself", point)
		}
	}
	f, log := newFreezer(m.dir, true)
	log.before = func() {
		for _, point := range m.points {
			if frozen(t, point) {
				t.Errorf("a message was written while %s was frozen", point)
			}
		}
	}
	m.Freezer = f
	if err := f.Resume(); err != nil {
		t.Error(err)
	}
	m.check(t, false, false)
}

// A file system whose disk does not answer makes the freeze fail before anything
// is frozen, or at the least thaws the others.
func TestStuck(t *testing.T) {
	for _, call := range []string{"sync", "freeze"} {
		t.Run(call, func(t *testing.T) {
			// On a busy machine the others may not keep to a small limit either.
			if !testStuck(t, call, 300*time.Millisecond) && !testStuck(t, call, 10*time.Second) {
				t.Error("another file system than the one that is stuck takes too long")
			}
		})
	}
}

// testStuck returns whether only the file system was slow that is to be.
func testStuck(t *testing.T, call string, limit time.Duration) bool {
	m := newMachine(t, 3, func(c *Config) { c.MountLimit = limit })
	answer := make(chan struct{})
	stuck, err := os.Stat(m.points[1])
	if err != nil {
		t.Fatal(err)
	}
	slow := func(fn func(int) error) func(int) error {
		return func(fd int) error {
			f := os.NewFile(uintptr(must(unix.Dup(fd))), "")
			defer f.Close()
			if info, err := f.Stat(); err == nil && os.SameFile(info, stuck) {
				<-answer
			}
			return fn(fd)
		}
	}
	if call == "sync" {
		m.kernel.sync = slow(m.kernel.sync)
	} else {
		m.kernel.freeze = slow(m.kernel.freeze)
	}
	want := fmt.Sprintf("failed to freeze %s: no end after %v", m.points[1], limit)
	_, err = m.freeze(t.Context(), &qga.FSFreezeFreeze.Info, listed(nil))
	if err != nil && err.Error() != want && strings.HasSuffix(err.Error(), fmt.Sprintf(": no end after %v", limit)) {
		close(answer)
		m.awaitThaw(t)
		return false
	}
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	m.check(t, false, false, false)
	want = "failed to freeze " + m.points[1] + ": an earlier call has not returned"
	if _, err := m.freeze(t.Context(), &qga.FSFreezeFreeze.Info, listed(nil)); err == nil || err.Error() != want {
		t.Errorf("again: got %v, want %s", err, want)
	}
	close(answer)
	eventually(t, func() error {
		n, err := m.freeze(t.Context(), &qga.FSFreezeFreeze.Info, listed(nil))
		if err == nil && n != 3 {
			t.Errorf("froze %d", n)
		}
		return err
	})
	m.thawAll(t, 3)
	m.check(t, false, false, false)
	m.awaitThaw(t)
	return true
}

// TestStuckOpening has a file system that is there when it is first asked, and then no
// more.
func TestStuckOpening(t *testing.T) {
	const limit = 300 * time.Millisecond
	m := newMachine(t, 2)
	answer, opened := make(chan struct{}), make(chan int, 1)
	var calls atomic.Int32
	m.kernel.open = func(point string) (int, error) {
		if point == m.points[1] && calls.Add(1) == 2 {
			<-answer
			fd, err := open(point)
			opened <- fd
			return fd, err
		}
		return open(point)
	}
	ctx, cancel := limited(t.Context(), limit)
	defer cancel()
	list, err := mounts.List(m.Root)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	i := slices.IndexFunc(list, func(mount mounts.Mount) bool { return mount.Point == m.points[1] })
	if _, err := m.open(ctx, list[i]); err != stuck.ErrStuck {
		t.Errorf("got %v, want %v", err, stuck.ErrStuck)
	}
	close(answer)
	fd := <-opened
	eventually(t, func() error {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			return errors.New("what came too late is still open")
		}
		return nil
	})
	m.thawAll(t, 0)
}

// Many file systems on a disk that does not answer must not hold a thread each.
func TestManyStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{MountLimit: time.Minute}, false)
		var calls atomic.Int32
		answer := make(chan struct{})
		f.kernel.sync = func(int) error {
			calls.Add(1)
			<-answer
			return nil
		}
		var volumes []*volume
		for i := range 50 {
			volumes = append(volumes, &volume{point: "/" + strconv.Itoa(i), device: device{8, uint32(i)}})
		}
		begin := time.Now()
		err := f.syncAll(t.Context(), volumes)
		if err == nil || !strings.HasSuffix(err.Error(), ": no end after 1m0s") || time.Since(begin) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
		if n := calls.Load(); n != syncs {
			t.Errorf("%d calls, want %d", n, syncs)
		}
		close(answer)
	})
}

func must(fd int, err error) int {
	if err != nil {
		panic(err)
	}
	return fd
}

// A thaw that fails is told, and does not stop the agent from serving.
func TestThawFails(t *testing.T) {
	m := newMachine(t, 2)
	m.freezeAll(t, 2)
	thaw := m.kernel.thaw
	first := true
	m.kernel.thaw = func(fd int) error {
		if first {
			first = false
			return unix.EIO
		}
		return thaw(fd)
	}
	n, err := m.thaw(t.Context())
	if want := "failed to thaw " + m.points[0] + ": Input/output error"; n != 1 || err == nil || err.Error() != want {
		t.Errorf("got %d, %v, want 1, %s", n, err, want)
	}
	m.thawAll(t, 1)
	m.check(t, false, false)
}

// A request may be there before the agent has noticed that the guard has thawed.
func TestOvertaken(t *testing.T) {
	m := newMachine(t, 1)
	m.freezeAll(t, 1)
	h := m.hold
	if !m.Frozen() {
		t.Error("not frozen after the freeze")
	}
	m.mu.Lock() // nobody can notice
	if err := unix.Kill(h.guard.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for !h.guard.hasThawed() {
		time.Sleep(time.Millisecond)
	}
	if !m.Frozen() {
		t.Error("not frozen after the guard's end, and nobody has thawed")
	}
	m.mu.Unlock()
	if m.Frozen() {
		t.Error("frozen after the guard's end")
	}
	m.thawAll(t, 0)
	m.check(t, false)
}

// An agent without permission has nothing to thaw, which is no error unless it, or
// the agent before it, had frozen something.
func TestThawWithoutPermission(t *testing.T) {
	m := newMachine(t, 2)
	m.freezeAll(t, 2)
	allowed := m.kernel.thaw
	m.kernel.thaw = func(int) error { return unix.EPERM }
	n, err := m.thaw(t.Context())
	want := "failed to thaw " + m.points[0] + ": Operation not permitted\nfailed to thaw " + m.points[1] + ": Operation not permitted"
	if n != 0 || err == nil || err.Error() != want {
		t.Errorf("got %d, %v, want 0, %s", n, err, want)
	}
	m.thawAll(t, 0)
	next, _ := newFreezer(m.dir, true)
	next.kernel.thaw = m.kernel.thaw
	if err := next.Resume(); err == nil || err.Error() != want {
		t.Errorf("the next agent: got %v, want %s", err, want)
	}
	m.kernel.thaw = allowed
	m.thawAll(t, 2)
	m.check(t, false, false)
}

// The state directory does not answer for as long as the freeze lasts. When it
// does, it must not say that all is frozen.
func TestStateDirStuck(t *testing.T) {
	m := newMachine(t, 1)
	m.StateDir = mountLoop(t, filepath.Join(m.dir, "state"))
	fd, err := open(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := running.freeze(fd); err != nil {
		t.Fatal(err)
	}
	m.freezeAll(t, 1)
	m.thawAll(t, 1)
	if err := running.thaw(fd); err != nil {
		t.Fatal(err)
	}
	for _, frozen := range []bool{true, false} { // wait for both
		eventually(t, func() error {
			_, err := m.marks.Do(frozen, time.Minute, func() (struct{}, error) { return struct{}{}, nil })
			return err
		})
	}
	if marked, err := state.Frozen(m.StateDir); marked || err != nil {
		t.Errorf("marked %v, %v", marked, err)
	}
}

func TestNoMountList(t *testing.T) {
	m := newMachine(t, 1)
	info := filepath.Join(m.dir, "proc/self/mountinfo")
	m.freezeAll(t, 1)
	if err := os.Remove(info); err != nil {
		t.Fatal(err)
	}
	m.thawAll(t, 1) // what we froze we know
	m.list(t)
	m.check(t, false)
	if err := os.Remove(info); err != nil {
		t.Fatal(err)
	}
	want := "failed to open mtab file: '/proc/self/mounts'"
	if _, err := m.thaw(t.Context()); err == nil || err.Error() != want {
		t.Errorf("thaw: got %v, want %s", err, want)
	}
	if _, err := m.freeze(t.Context(), &qga.FSFreezeFreeze.Info, listed(nil)); err == nil || err.Error() != want {
		t.Errorf("freeze: got %v, want %s", err, want)
	}
	f, _ := newFreezer(m.dir, true)
	if err := f.Resume(); err == nil || !f.Frozen() {
		t.Errorf("resumed: %v, frozen %v", err, f.Frozen())
	}
}

func TestFreezable(t *testing.T) {
	all := []mounts.Mount{
		{Point: "/", Type: "ext4", Major: 8},
		{Point: "/iso", Type: "iso9660", Major: 11, ReadOnly: true},
		{Point: "/usb", Type: "fuseblk", Major: 8, Minor: 3},
		{Point: "/srv/a", Others: []string{"/bind"}, Type: "xfs", Major: 8, Minor: 1},
		{Point: "/srv/b", Type: "xfs", Major: 8, Minor: 2},
	}
	for _, tt := range []struct {
		exclude, list []string
		want          []string
	}{
		{nil, nil, []string{"/", "/srv/a", "/srv/b"}},
		{[]string{"/srv/*"}, nil, []string{"/"}},
		{[]string{"/b*"}, nil, []string{"/", "/srv/b"}},
		{nil, []string{"/bind", "/usb"}, []string{"/srv/a"}},
	} {
		var got []string
		for _, m := range freezable(all, tt.exclude, listed(tt.list)) {
			got = append(got, m.Point)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("without %q, of %q: got %q, want %q", tt.exclude, tt.list, got, tt.want)
		}
	}
	if len(all) != 5 || all[1].Point != "/iso" {
		t.Error("the list was changed")
	}
}
