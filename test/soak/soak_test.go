//go:build linux

// Package soak sends the agent many requests of all kinds, from several hosts
// that come and go, and checks that nothing grows: no threads, descriptors,
// handles, processes or memory.
package soak

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	duration = flag.Duration("soak", time.Minute, "how long to send requests")
	requests = flag.Int64("requests", 0, "send so many requests, however long it takes, for example 1000000")
)

const (
	hosts = 6
	// resultLifetime is how long the agent is told to remember programs.
	resultLifetime = time.Second
	// quiet is more than that, and than the agent takes to give back memory.
	quiet = 4 * time.Second
	// patience bounds every wait.
	patience = time.Minute
	// peakLimit is for a few megabytes of requests and replies a host, in all
	// their stages.
	peakLimit = 64 << 20
)

func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	a := start(t)

	// What is made at first use is made now.
	a.serve(t, 0, 4*time.Second)
	before := a.rest(t)
	t.Logf("before: %v", before)

	stop := make(chan struct{})
	peak := make(chan int64)
	go func() {
		var most int64
		for {
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(50 * time.Millisecond):
				if u, err := a.usage(); err == nil {
					most = max(most, u.memory)
				}
			}
		}
	}()
	begin := time.Now()
	n := a.serve(t, *requests, *duration)
	t.Logf("%d requests in %v, %.0f a second", n, time.Since(begin).Round(time.Second), float64(n)/time.Since(begin).Seconds())
	close(stop)
	most := <-peak
	// The runtime keeps threads that once waited in the kernel for a host. It
	// is chance whether all of them did before, and how many there were at once
	// depends on how busy the machine is. What leaks would be hundreds.
	threads, memory := before.threads+6, before.memory+before.memory/10+1<<20
	after := a.rest(t)
	for end := time.Now().Add(patience); time.Now().Before(end); after = a.rest(t) {
		if after.descriptors == before.descriptors && after.threads <= threads && after.memory <= memory && after.children == 0 {
			break
		}
	}
	t.Logf("after: %v; at its peak %d kB", after, most>>10)

	if most > peakLimit {
		t.Errorf("the agent had up to %d MB resident, want no more than %d", most>>20, peakLimit>>20)
	}
	if after.descriptors != before.descriptors {
		t.Errorf("descriptors: %d before and %d after", before.descriptors, after.descriptors)
	}
	if after.threads > threads {
		t.Errorf("threads: %d before and %d after", before.threads, after.threads)
	}
	if after.memory > memory {
		t.Errorf("resident: %d kB before and %d kB after", before.memory>>10, after.memory>>10)
	}
	if after.children != 0 {
		t.Errorf("%d children are left", after.children)
	}
	h := a.dial(t)
	for _, pid := range a.pids() {
		if err := h.ask(fmt.Sprintf(`{"execute":"guest-exec-status","arguments":{"pid":%d}}`, pid), func(line string) error {
			if want := fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "PID %d does not exist"}}`, pid); line != want {
				return fmt.Errorf("process %d is not forgotten: %s", pid, line)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// An agent is the program under test.
type agent struct {
	cmd  *exec.Cmd
	dir  string
	sent atomic.Int64

	mu       sync.Mutex
	programs []int // process ids of some that it started
}

func (a *agent) socket() string { return filepath.Join(a.dir, "sock") }

func (a *agent) pids() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.programs
}

func start(t *testing.T) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "qga-soak-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a := &agent{dir: dir}
	program := filepath.Join(dir, "qemu-ga")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/bellhop-vm/bellhop/cmd/qemu-ga")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[bellhop]\nexec-result-lifetime=%d\n", resultLifetime/time.Second), 0o600); err != nil {
		t.Fatal(err)
	}
	a.cmd = exec.Command(program, "-c", conf, "-t", dir, "-m", "unix-listen", "-p", a.socket())
	a.cmd.Stderr = os.Stderr
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	})
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", a.socket()); err == nil {
			conn.Close()
			return a
		}
	}
	t.Fatal("the agent does not listen")
	return nil
}

// serve lets all hosts send requests, for some time, or at least so many if
// that is not zero. It returns how many there were.
func (a *agent) serve(t *testing.T, count int64, limit time.Duration) int64 {
	t.Helper()
	a.sent.Store(0)
	begin := time.Now()
	more := func() bool {
		if t.Failed() {
			return false
		}
		if count > 0 {
			return a.sent.Load() < count
		}
		return time.Since(begin) < limit
	}
	var group sync.WaitGroup
	for i := range hosts {
		group.Go(func() {
			seed := rand.Uint64()
			w := &worker{agent: a, t: t, rng: rand.New(rand.NewPCG(seed, uint64(i))), file: filepath.Join(a.dir, fmt.Sprint("file", i))}
			for more() {
				if err := w.visit(); err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return a.sent.Load()
}

// A worker is a host.
type worker struct {
	*agent
	t    *testing.T
	rng  *rand.Rand
	file string
}

// visit connects, does some things, and leaves.
func (w *worker) visit() error {
	h := w.dial(w.t)
	defer h.Close()
	for range 1 + w.rng.IntN(40) {
		var err error
		switch n := w.rng.IntN(1000); {
		case n < 5:
			err = w.program(h)
		case n < 150:
			err = w.useFile(h)
		case n < 250:
			err = w.garbage(h)
		case n < 300:
			err = h.ask(`{"execute":"no-such-command"}`, is(`{"error": {"class": "CommandNotFound", "desc": "The command no-such-command has not been found"}}`))
		case n < 400:
			err = h.ask(`{"execute":"guest-info"}`, begins(`{"return": {`))
		case n < 450:
			err = h.ask(`{"execute":"guest-get-osinfo"}`, begins(`{"return": {`))
		case n < 700:
			err = w.burst(h)
		default:
			err = h.ask(`{"execute":"guest-ping"}`, is(`{"return": {}}`))
		}
		if err != nil {
			return err
		}
	}
	if w.rng.IntN(3) == 0 {
		// To leave in the middle, be it of a request or, for the agent, of
		// a reply.
		partial := []string{
			`{"execute":"guest-pi`, `{"execute":"guest-file-open","arguments":{"path":"` + strings.Repeat("x", w.rng.IntN(100_000)),
			"{", "[[[[", `{"execute":"guest-info"}{"execute":"guest-info"}`, `'`,
		}
		a := partial[w.rng.IntN(len(partial))]
		w.sent.Add(1)
		if _, err := io.WriteString(h, a); err != nil {
			return err
		}
	}
	return nil
}

// burst sends many requests at once.
func (w *worker) burst(h *host) error {
	n := 1 + w.rng.IntN(64)
	if _, err := io.WriteString(h, strings.Repeat(`{"execute":"guest-ping"}`, n)); err != nil {
		return err
	}
	for range n {
		w.sent.Add(1)
		if err := h.expect(is(`{"return": {}}`)); err != nil {
			return err
		}
	}
	return nil
}

// garbage sends what is no request, and gets in step again.
func (w *worker) garbage(h *host) error {
	b := make([]byte, w.rng.IntN(200))
	const soup = "{}[]:,\"'\\01-.eE truefalsnu\n\xff\x00\x01\xc3\xa9\xfe"
	for i := range b {
		b[i] = soup[w.rng.IntN(len(soup))]
	}
	id := w.rng.Int64()
	w.sent.Add(2)
	if _, err := fmt.Fprintf(h, "%s\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%d}}", b, id); err != nil {
		return err
	}
	want := fmt.Sprintf("\xff{\"return\": %d}\n", id)
	for {
		line, err := h.r.ReadString('\n')
		if err != nil || line == want {
			return err
		}
	}
}

// useFile goes through the life of a file, with some mistakes.
func (w *worker) useFile(h *host) error {
	var handle int
	if err := h.ask(fmt.Sprintf(`{"execute":"guest-file-open","arguments":{"path":"%s","mode":"w+"}}`, w.file), func(line string) error {
		_, err := fmt.Sscanf(line, `{"return": %d}`, &handle)
		return err
	}); err != nil {
		return err
	}
	size := 3 * w.rng.IntN(1<<w.rng.IntN(18))
	arg := func(command, more string) string {
		return fmt.Sprintf(`{"execute":"guest-file-%s","arguments":{"handle":%d%s}}`, command, handle, more)
	}
	data := strings.Repeat("QUJD", size/3)
	return errors.Join(
		h.ask(arg("write", `,"buf-b64":"`+data+`"`), is(fmt.Sprintf(`{"return": {"count": %d, "eof": false}}`, size))),
		h.ask(arg("write", `,"buf-b64":"?"`), begins(`{"error": `)),
		h.ask(arg("seek", `,"offset":0,"whence":"set"`), is(`{"return": {"eof": false, "position": 0}}`)),
		h.ask(arg("read", fmt.Sprintf(`,"count":%d`, size)), begins(fmt.Sprintf(`{"return": {"count": %d, "buf-b64": "%s", `, size, data))),
		h.ask(arg("read", ``), is(`{"return": {"count": 0, "buf-b64": "", "eof": true}}`)),
		h.ask(arg("flush", ``), is(`{"return": {}}`)),
		h.ask(arg("close", ``), is(`{"return": {}}`)),
		h.ask(arg("close", ``), is(fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "handle '%d' has not been found"}}`, handle))),
	)
}

// program runs one and asks how it went until it has ended.
func (w *worker) program(h *host) error {
	var pid int
	if err := h.ask(`{"execute":"guest-exec","arguments":{"path":"true","capture-output":true,"input-data":"QUJD"}}`, func(line string) error {
		_, err := fmt.Sscanf(line, `{"return": {"pid": %d}}`, &pid)
		return err
	}); err != nil {
		return err
	}
	for exited := false; !exited; {
		if err := h.ask(fmt.Sprintf(`{"execute":"guest-exec-status","arguments":{"pid":%d}}`, pid), func(line string) error {
			exited = line == `{"return": {"exitcode": 0, "exited": true}}`
			if !exited && line != `{"return": {"exited": false}}` {
				return errors.New(line)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.programs) < 100 {
		w.programs = append(w.programs, pid)
	}
	return nil
}

// A host is a connection to the agent.
type host struct {
	net.Conn
	agent *agent
	r     *bufio.Reader
}

func (a *agent) dial(t *testing.T) *host {
	conn, err := net.Dial("unix", a.socket())
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(2 * patience))
	}
	if err != nil {
		t.Error(err)
	}
	return &host{conn, a, bufio.NewReader(conn)}
}

// ask sends a request and checks its reply.
func (h *host) ask(request string, check func(line string) error) error {
	h.agent.sent.Add(1)
	if _, err := io.WriteString(h, request); err != nil {
		return err
	}
	return h.expect(check)
}

func (h *host) expect(check func(line string) error) error {
	line, err := h.r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("after %.100q: %w", line, err)
	}
	return check(strings.TrimSuffix(line, "\n"))
}

func is(want string) func(string) error {
	return func(line string) error {
		if line != want {
			return fmt.Errorf("got %.300s, want %.300s", line, want)
		}
		return nil
	}
}

func begins(want string) func(string) error {
	return func(line string) error {
		if !strings.HasPrefix(line, want) {
			return fmt.Errorf("got %.300s, want %.300s", line, want)
		}
		return nil
	}
}

// A usage is what a process has of the machine.
type usage struct {
	threads, descriptors, children int
	memory                         int64 // resident, in bytes
}

func (u usage) String() string {
	return fmt.Sprintf("%d threads, %d descriptors, %d children, %d kB", u.threads, u.descriptors, u.children, u.memory>>10)
}

// rest waits until the agent has nothing to do any more, which shows by nothing
// having become less for a while.
func (a *agent) rest(t *testing.T) usage {
	t.Helper()
	time.Sleep(quiet - time.Second)
	u, err := a.usage()
	for end := time.Now().Add(patience); err == nil && time.Now().Before(end); {
		time.Sleep(time.Second)
		var now usage
		now, err = a.usage()
		less := now.descriptors < u.descriptors || now.children < u.children || now.memory < u.memory
		if u = now; !less {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (a *agent) usage() (u usage, err error) {
	proc := fmt.Sprintf("/proc/%d/", a.cmd.Process.Pid)
	threads, err := os.ReadDir(proc + "task")
	if err != nil {
		return u, err
	}
	descriptors, err := os.ReadDir(proc + "fd")
	if err != nil {
		return u, err
	}
	u.threads, u.descriptors = len(threads), len(descriptors)
	for _, thread := range threads {
		// A thread that ended meanwhile has none.
		list, _ := os.ReadFile(proc + "task/" + thread.Name() + "/children")
		u.children += len(strings.Fields(string(list)))
	}
	statm, err := os.ReadFile(proc + "statm")
	if err != nil {
		return u, err
	}
	var size, resident int64
	_, err = fmt.Sscan(string(statm), &size, &resident)
	u.memory = resident * int64(unix.Getpagesize())
	return u, err
}
