package threads

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCalmMonitor(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if p := policy(0); p != schedOther {
		t.Skipf("the test runs under policy %d", p)
	}
	tid, ok := monitor()
	if !ok || tid == os.Getpid() || tid == syscall.Gettid() {
		t.Fatalf("monitor is %d, %v, in process %d, thread %d", tid, ok, os.Getpid(), syscall.Gettid())
	}
	defer setPolicy(tid, schedOther) //nolint:errcheck // was possible a moment before

	// Another policy is left alone.
	if err := setPolicy(0, schedBatch); err != nil {
		t.Fatal(err)
	}
	CalmMonitor()
	Restore()
	if p := policy(tid); p != schedOther {
		t.Errorf("monitor has policy %d, in a program with another than the usual", p)
	}
	if p := policy(0); p != schedBatch {
		t.Errorf("thread was given policy %d, in a program with another than the usual", p)
	}

	if err := setPolicy(0, schedOther); err != nil {
		t.Fatal(err)
	}
	CalmMonitor()
	defer calm.Store(false)
	if p := policy(tid); p != schedBatch {
		t.Errorf("monitor has policy %d", p)
	}
	if p := policy(0); p != schedOther {
		t.Errorf("this thread has policy %d", p)
	}

	// A thread that the monitor has started.
	if err := setPolicy(0, schedBatch); err != nil {
		t.Fatal(err)
	}
	Restore()
	if p := policy(0); p != schedOther {
		t.Errorf("policy %d after Restore", p)
	}
	if err := setPolicy(0, schedBatch); err != nil {
		t.Fatal(err)
	}
	if p := childPolicy(t); p != "0" {
		t.Errorf("a child has policy %s", p)
	}
}

// TestMonitor makes system calls, which is what the monitor watches and no other thread
// has to do with.
func TestMonitor(t *testing.T) {
	tid, ok := monitor()
	if !ok {
		t.Fatal("no monitor")
	}
	const more = 50 // which takes it milliseconds
	before := switches(t, tid)
	for end := time.Now().Add(time.Minute); switches(t, tid) < before+more; {
		if time.Now().After(end) {
			t.Fatalf("thread %d has come and gone %d times in a minute", tid, switches(t, tid)-before)
		}
	}
}

// switches returns how often a thread has given the processor away.
func switches(t *testing.T, tid int) (n int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// childPolicy returns the policy of a program started by ForkExec.
func childPolicy(t *testing.T) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pid, err := ForkExec("/bin/cat", []string{"cat", "/proc/self/stat"}, &syscall.ProcAttr{
		Files: []uintptr{0, w.Fd(), 2},
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	stat, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	// proc(5): policy is field 41, and field 3 comes after the name.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 39 {
		t.Fatalf("stat: %q", stat)
	}
	return fields[41-3]
}
