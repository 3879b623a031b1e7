//go:build unix

package exec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// settled is how long these tests wait for what happens by itself.
const settled = 2 * time.Minute

// newProcesses returns Processes that, at the end of the test, have to have
// given back all that they took.
func newProcesses(t testing.TB, grace time.Duration) *Processes {
	p := New(Config{Grace: grace})
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	t.Cleanup(func() {
		eventually(t, "goroutines and descriptors", func() string {
			if g, f := runtime.NumGoroutine(), descriptors(t); g > goroutines || f > fds {
				return fmt.Sprintf("%d and %d, were %d and %d", g, f, goroutines, fds)
			}
			return ""
		})
		p.mu.Lock()
		defer p.mu.Unlock()
		held := 0
		for _, r := range p.byPID {
			held += r.held
		}
		if p.held != held || p.places != len(p.byPID) || p.pendingInput != 0 || p.draining != 0 {
			t.Errorf("%d bytes are held, want %d; %d places, want %d; %d bytes of input; %d streams draining",
				p.held, held, p.places, len(p.byPID), p.pendingInput, p.draining)
		}
		if p.seen.Len()+p.unseen.Len() != len(p.byPID) {
			t.Errorf("%d and %d outcomes of %d programs", p.seen.Len(), p.unseen.Len(), len(p.byPID))
		}
	})
	return p
}

func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// eventually waits until check has nothing to complain about.
func eventually(t testing.TB, what string, check func() string) {
	t.Helper()
	end := time.Now().Add(settled)
	for {
		complaint := check()
		if complaint == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %s", what, complaint)
		}
		time.Sleep(time.Millisecond)
	}
}

func start(t testing.TB, p *Processes, args qga.ExecArgs) int64 {
	t.Helper()
	r, err := p.exec(t.Context(), args)
	if err != nil {
		t.Fatal(err)
	}
	return r.PID
}

// ask returns the reply to guest-exec-status as it goes over the wire.
func ask(t testing.TB, p *Processes, pid int64) (string, error) {
	t.Helper()
	var out bytes.Buffer
	w := wire.NewWriter(&out)
	err := p.status(t.Context(), qga.ExecStatusArgs{PID: pid}, w)
	if errFlush := w.Flush(); errFlush != nil {
		t.Fatal(errFlush)
	}
	return out.String(), err
}

// await asks until the program is gone.
func await(t testing.TB, p *Processes, pid int64) string {
	t.Helper()
	var reply string
	eventually(t, "end of program", func() string {
		var err error
		if reply, err = ask(t, p, pid); err != nil {
			t.Fatal(err)
		}
		if reply == `{"exited": false}` {
			return "still running"
		}
		return ""
	})
	return reply
}

func decode(t testing.TB, reply string) qga.ExecStatusResult {
	t.Helper()
	var r qga.ExecStatusResult
	if err := json.Unmarshal([]byte(reply), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// shell is a script and what is captured of it.
func shell(script string, capture qga.CaptureOutput) qga.ExecArgs {
	return qga.ExecArgs{Path: "sh", Arg: []string{"-c", script}, CaptureOutput: &capture}
}

// A latch is a file that scripts wait for: what they do after that does not depend
// on how quick they or we are.
type latch string

func newLatch(t testing.TB) latch { return latch(filepath.Join(t.TempDir(), "latch")) }

// wait is a command of a script that waits for the latch to be opened, or for the
// end of the test, which removes the directory.
func (l latch) wait() string {
	return fmt.Sprintf("until [ -e '%s' ] || [ ! -d '%s' ]; do sleep 0.02; done", l, filepath.Dir(string(l)))
}

func (l latch) open(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(string(l), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// kill ends programs that were started to run for long.
func kill(t testing.TB, pids ...int64) {
	t.Helper()
	for _, pid := range pids {
		if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
			t.Errorf("program %d: %v", pid, err)
		}
	}
}

// output runs a script and returns what it prints.
func output(t testing.TB, p *Processes, script string) string {
	t.Helper()
	return string(decode(t, await(t, p, start(t, p, shell(script, qga.CaptureMerged)))).OutData)
}

// The replies are the C agent's.
func TestReplies(t *testing.T) {
	const both = "echo out; echo err >&2; echo out2"
	for _, test := range []struct {
		args qga.ExecArgs
		want string
	}{
		{qga.ExecArgs{Path: "true"}, `{"exitcode": 0, "exited": true}`},
		{shell("exit 3", qga.CaptureNone), `{"exitcode": 3, "exited": true}`},
		{shell("true", qga.CaptureSeparated), `{"exitcode": 0, "exited": true}`},
		{shell("kill -9 $$", qga.CaptureNone), `{"signal": 9, "exited": true}`},
		{shell(both+"; exit 3", qga.CaptureSeparated), `{"exitcode": 3, "err-data": "ZXJyCg==", "out-data": "b3V0Cm91dDIK", ` +
			`"err-truncated": false, "out-truncated": false, "exited": true}`},
		{shell(both+"; kill -15 $$", qga.CaptureSeparated), `{"err-data": "ZXJyCg==", "out-data": "b3V0Cm91dDIK", ` +
			`"err-truncated": false, "signal": 15, "out-truncated": false, "exited": true}`},
		{shell(both, qga.CaptureNone), `{"exitcode": 0, "exited": true}`},
		{shell(both, qga.CaptureStdout), `{"exitcode": 0, "out-data": "b3V0Cm91dDIK", "out-truncated": false, "exited": true}`},
		{shell(both, qga.CaptureStderr), `{"exitcode": 0, "err-data": "ZXJyCg==", "err-truncated": false, "exited": true}`},
		{shell(both, qga.CaptureMerged), `{"exitcode": 0, "out-data": "b3V0CmVycgpvdXQyCg==", "out-truncated": false, "exited": true}`},
	} {
		p := newProcesses(t, DefaultGrace)
		got := await(t, p, start(t, p, test.args))
		if got != test.want {
			t.Errorf("%q: got %s, want %s", test.args.Arg, got, test.want)
		}

		// The encoder knows the C agent's order of members for any result.
		var b bytes.Buffer
		w := wire.NewWriter(&b)
		wire.EncoderOf(reflect.TypeFor[qga.ExecStatusResult]()).Encode(w, reflect.ValueOf(decode(t, got)))
		if w.Flush(); b.String() != got {
			t.Errorf("%q: got %s, the encoder writes %s", test.args.Arg, got, b.String())
		}
	}
}

func TestUnknownPID(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	for _, pid := range []int64{0, -5, 1, 1 << 40, int64(os.Getpid())} {
		_, err := ask(t, p, pid)
		if want := fmt.Sprintf("PID %d does not exist", pid); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func script(t testing.TB, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// Where programs are looked for and why they do not start is as in the C agent.
func TestLookup(t *testing.T) {
	dir := t.TempDir()
	directory := filepath.Join(dir, "directory") // with a directory called true
	if err := os.MkdirAll(filepath.Join(directory, "true"), 0o755); err != nil {
		t.Fatal(err)
	}
	scripts := filepath.Join(dir, "scripts")
	prog := script(t, scripts, "prog", "echo \"$0\" \"$@\"\n", 0o755)
	bad := script(t, scripts, "bad", "#!/no/such\n", 0o755)
	plain := script(t, filepath.Join(dir, "plain"), "prog", "echo no\n", 0o644)
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	t.Chdir(scripts)

	const missing, denied = "No such file or directory", "Permission denied"
	for _, test := range []struct {
		path   string
		search string // PATH, if any
		want   string // output
		err    string // in parentheses
	}{
		{prog, "", prog + " a b\n", ""},
		{"./prog", "", "./prog a b\n", ""},
		{"prog", scripts, prog + " a b\n", ""},
		{"prog", "/nope:" + filepath.Dir(plain) + ":" + scripts, prog + " a b\n", ""},
		{"true", directory + ":/bin:/usr/bin", "", ""},
		{"prog", ":/nope", "prog a b\n", ""},
		{"prog", "/nope:", "prog a b\n", ""},
		{"", "", "", missing},
		{"/no/such/bin", "", "", missing},
		{"no-such-bin-xyz", "", "", missing},
		{"prog", "/nope", "", missing},
		{"bad", scripts, "", missing},
		{bad, "", "", missing},
		{"true", directory, "", denied},
		{"prog", filepath.Dir(plain), "", denied},
		{"prog", filepath.Dir(plain) + ":" + plain + ":/nope", "", denied},
		{plain, "", "", denied},
		{dir, "", "", denied},
		{plain + "/x", "", "", "Not a directory"},
		{loop, "", "", "Too many levels of symbolic links"},
		{"loop", dir + ":/usr/bin", "", "Too many levels of symbolic links"},
		{"nul\x00", "/usr/bin", "", "Invalid argument"},
	} {
		p := newProcesses(t, DefaultGrace)
		capture := qga.CaptureSeparated
		args := qga.ExecArgs{Path: test.path, Arg: []string{"a", "b"}, CaptureOutput: &capture}
		if test.search != "" {
			args.Env = []string{"X=1", "PATH=" + test.search, "PATH=" + scripts}
		}
		r, err := p.exec(t.Context(), args)
		if test.err != "" {
			want := "Failed to execute child process \u201C" + test.path + "\u201D (" + test.err + ")"
			if err == nil || err.Error() != want {
				t.Errorf("%q in %q: got %v, want %s", test.path, test.search, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q in %q: %v", test.path, test.search, err)
			continue
		}
		if got := string(decode(t, await(t, p, r.PID)).OutData); got != test.want {
			t.Errorf("%q in %q: got %q, want %q", test.path, test.search, got, test.want)
		}
	}
}

func TestSearchPath(t *testing.T) {
	t.Setenv("PATH", "/agent")
	for _, test := range []struct {
		env  []string
		want string
	}{
		{nil, "/agent"},
		{[]string{"A=1"}, "/agent"},
		{[]string{"PATH=/a", "PATH=/b"}, "/a"},
		{[]string{"PATH="}, ""},
	} {
		if got := searchPath(test.env); got != test.want {
			t.Errorf("%q: got %q, want %q", test.env, got, test.want)
		}
	}
	os.Unsetenv("PATH") // Setenv brings it back
	if got := searchPath(nil); got != "/bin:/usr/bin" {
		t.Errorf("without any: got %q", got)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("BELLHOP_TEST", "inherited")
	p := newProcesses(t, DefaultGrace)
	capture := qga.CaptureSeparated
	for _, test := range []struct {
		env  []string
		want string
	}{
		{[]string{}, ""},
		{[]string{"A=1", "B=two words", "JUNK"}, "A=1\nB=two words\nJUNK\n"},
	} {
		pid := start(t, p, qga.ExecArgs{Path: "env", Env: test.env, CaptureOutput: &capture})
		if got := string(decode(t, await(t, p, pid)).OutData); got != test.want {
			t.Errorf("%q: got %q, want %q", test.env, got, test.want)
		}
	}
	if got := output(t, p, "echo $BELLHOP_TEST"); got != "inherited\n" {
		t.Errorf("got %q", got)
	}
}

// What a program finds: null device or pipe, no other descriptors, our session,
// group, umask and directory, no signal blocked, and none ignored that we do not:
// nohup(1) leaves one so, and the C library's posix_spawn signal 32, its own.
func TestSurroundings(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	// Somebody leaves a descriptor open.
	leak, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	defer unix.Umask(unix.Umask(0o027))
	dir := t.TempDir()
	t.Chdir(dir)
	p := newProcesses(t, DefaultGrace)
	sid, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	// The shell looks by itself: to start a program it would open descriptors
	// and block signals for a moment.
	got := output(t, p, `for fd in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$fd ] && echo -n "$fd "; done; readlink /proc/$$/fd/0; umask; pwd
		cut -d' ' -f5,6 /proc/$$/stat
		while read -r name mask; do case $name in SigBlk:|SigIgn:) echo $name $mask;; esac; done < /proc/$$/status`)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, ignored, _ := strings.Cut(string(status), "SigIgn:\t")
	ignored, _, _ = strings.Cut(ignored, "\n")
	want := fmt.Sprintf("0 1 2 /dev/null\n0027\n%s\n%d %d\nSigBlk: %016x\nSigIgn: %s\n", dir, unix.Getpgrp(), sid, 0, ignored)
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestInput(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	capture := qga.CaptureSeparated
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 1 << 20, 1<<20 + 1, 5 << 20} {
		data := bytes.Repeat([]byte("x\x00\xFFy"), size/4+1)[:size]
		request := append([]byte{}, data...)
		pid := start(t, p, qga.ExecArgs{Path: "cat", InputData: request, CaptureOutput: &capture})
		clear(request) // its memory is used for something else now
		r := decode(t, await(t, p, pid))
		if !bytes.Equal(r.OutData, data) || *r.ExitCode != 0 {
			t.Errorf("%d bytes: got %d, exit code %d", size, len(r.OutData), *r.ExitCode)
		}
	}
}

// Input that nobody reads holds up nothing, and does not stay.
func TestInputNotRead(t *testing.T) {
	p := newProcesses(t, 50*time.Millisecond)
	data := make([]byte, 4<<20)
	pid := start(t, p, qga.ExecArgs{Path: "sleep", Arg: []string{"0.2"}, InputData: data})
	if got := await(t, p, pid); got != `{"exitcode": 0, "exited": true}` {
		t.Errorf("got %s", got)
	}
	// A child of the program's has it now, and does not read it either.
	capture := qga.CaptureNone
	file := filepath.Join(t.TempDir(), "child")
	pid = start(t, p, qga.ExecArgs{
		Path: "sh", Arg: []string{"-c", "exec 3<&0; sleep 600 0<&3 & echo $! >" + file}, InputData: data, CaptureOutput: &capture,
	})
	if got := await(t, p, pid); got != `{"exitcode": 0, "exited": true}` {
		t.Errorf("got %s", got)
	}
	eventually(t, "input", func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.pendingInput > 0 {
			return fmt.Sprintf("%d bytes wait", p.pendingInput)
		}
		return ""
	})
	var child int64
	if data, err := os.ReadFile(file); err != nil {
		t.Fatal(err)
	} else if _, err := fmt.Sscan(string(data), &child); err != nil {
		t.Fatal(err)
	}
	kill(t, child) // it is still there
}

func TestInputBounded(t *testing.T) {
	p := newProcesses(t, time.Millisecond)
	p.maxInput = 3 << 20
	sleep := qga.ExecArgs{Path: "sleep", Arg: []string{"600"}, InputData: make([]byte, 5<<20)}
	pid := start(t, p, sleep) // one may have more
	if _, err := p.exec(t.Context(), sleep); err == nil {
		t.Error("got no error for too much input")
	}
	await(t, p, start(t, p, qga.ExecArgs{Path: "cat", InputData: []byte("fits into the pipe")}))
	kill(t, pid)
	await(t, p, pid)
	eventually(t, "room", func() string {
		r, err := p.exec(t.Context(), qga.ExecArgs{Path: "true", InputData: make([]byte, 2<<20)})
		if err != nil {
			return err.Error()
		}
		await(t, p, r.PID)
		return ""
	})
}

func TestRunning(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	file := filepath.Join(t.TempDir(), "printed")
	pid := start(t, p, shell("echo x; >"+file+"; sleep 600; true", qga.CaptureSeparated))
	eventually(t, "output", func() string {
		if _, err := os.Stat(file); err != nil {
			return err.Error()
		}
		return ""
	})
	for range 3 {
		if got, err := ask(t, p, pid); err != nil || got != `{"exited": false}` {
			t.Errorf("got %s, %v", got, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	// The shell's child holds the pipe. Stopped, the shell makes no other.
	output(t, p, fmt.Sprintf("kill -STOP %[1]d; pkill -9 -P %[1]d; kill -9 %[1]d 2>/dev/null", pid))
	r := decode(t, await(t, p, pid))
	if string(r.OutData) != "x\n" || r.Signal == nil && *r.ExitCode != 137 {
		t.Errorf("got %+v", r)
	}
}

// A program's end is reported although somebody else holds its output, after
// the grace and with what there is.
func TestGrace(t *testing.T) {
	p := newProcesses(t, 200*time.Millisecond)
	const want = `{"exitcode": 4, "err-data": "eQo=", "out-data": "eAo=", "err-truncated": false, "out-truncated": false, "exited": true}`
	shortest := settled
	// A busy machine may need several attempts to show how soon it is.
	for range 5 {
		late := newLatch(t)
		begin := time.Now()
		pid := start(t, p, shell("echo x; echo y >&2; ("+late.wait()+"; echo late) & exit 4", qga.CaptureSeparated))
		got := await(t, p, pid)
		d := time.Since(begin)
		late.open(t)
		if d < 200*time.Millisecond {
			t.Errorf("reported after %v", d)
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if shortest = min(shortest, d); shortest < 900*time.Millisecond {
			return
		}
	}
	t.Errorf("reported after %v at the least", shortest)
}

// The end of the output within the grace is enough.
func TestGraceNotUsedUp(t *testing.T) {
	p := newProcesses(t, time.Hour)
	pid := start(t, p, shell("(sleep 0.3; echo late) & exit 4", qga.CaptureStdout))
	r := decode(t, await(t, p, pid))
	if string(r.OutData) != "late\n" || *r.ExitCode != 4 {
		t.Errorf("got %+v", r)
	}
}

func TestNoGrace(t *testing.T) {
	p := newProcesses(t, 0)
	late := newLatch(t)
	pid := start(t, p, shell("("+late.wait()+"; echo late) & echo x", qga.CaptureStdout))
	time.Sleep(300 * time.Millisecond)
	if got, err := ask(t, p, pid); err != nil || got != `{"exited": false}` {
		t.Errorf("got %s, %v", got, err)
	}
	late.open(t)
	if r := decode(t, await(t, p, pid)); string(r.OutData) != "x\nlate\n" {
		t.Errorf("got %+v", r)
	}
}

// A daemon that goes on to print after the grace is not killed by it.
func TestDaemonSurvives(t *testing.T) {
	p := newProcesses(t, 10*time.Millisecond)
	file := filepath.Join(t.TempDir(), "survived")
	daemon := fmt.Sprintf("(sleep 0.3; head -c 3000000 /dev/zero && touch %s) &", file)
	await(t, p, start(t, p, shell(daemon, qga.CaptureMerged)))
	eventually(t, "daemon", func() string {
		if _, err := os.Stat(file); err != nil {
			return err.Error()
		}
		return ""
	})
}

// There is an end to that, too.
func TestDrainingBounded(t *testing.T) {
	p := newProcesses(t, 10*time.Millisecond)
	p.maxDraining = 1
	for range 3 {
		await(t, p, start(t, p, shell("(sleep 0.5; echo late) &", qga.CaptureMerged)))
	}
	eventually(t, "draining", func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.draining > 1 {
			t.Errorf("%d streams are draining", p.draining)
		}
		if p.draining > 0 {
			return "still going on"
		}
		return ""
	})
}

func TestTruncation(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	for _, test := range []struct {
		size      int
		truncated bool
	}{
		{firstStep, false},
		{firstStep + 1, false},
		{lastStep, false},
		{16<<20 - 1, false},
		{16 << 20, false},
		{16<<20 + 1, true},
		{20 << 20, true},
	} {
		pid := start(t, p, shell(fmt.Sprintf("head -c %d /dev/zero", test.size), qga.CaptureStdout))
		r := decode(t, await(t, p, pid))
		if want := min(test.size, 16<<20); len(r.OutData) != want || *r.OutTruncated != test.truncated {
			t.Errorf("%d bytes: got %d, truncated %t", test.size, len(r.OutData), *r.OutTruncated)
		}
		if bytes.Count(r.OutData, []byte{0}) != len(r.OutData) {
			t.Errorf("%d bytes: something that was never written", test.size)
		}
	}
}

// Output in many pieces is one.
func TestBytesPreserved(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	var want strings.Builder
	for i := 1; i <= 100_000; i++ {
		want.WriteString(strconv.Itoa(i))
		want.WriteByte('\n')
	}
	if got := output(t, p, "seq 100000"); got != want.String() {
		t.Errorf("got %d bytes, want %d", len(got), want.Len())
	}
}

// All output together is bounded. That of programs that are gone gives way:
// what was reported first, then what was not, of which a trace stays.
func TestOutputBounded(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	p.maxOutput = 3 << 20
	print := func(mib string) int64 {
		return start(t, p, shell("head -c "+mib+"M /dev/zero", qga.CaptureStdout))
	}
	finished := func(pid int64) {
		t.Helper()
		eventually(t, "end of program", func() string {
			p.mu.Lock()
			defer p.mu.Unlock()
			if !p.byPID[pid].done {
				return "still running"
			}
			return ""
		})
	}
	seen := print("1")
	await(t, p, seen)
	unseen := print("1")
	finished(unseen)
	large := print("5")
	finished(large)

	if _, err := ask(t, p, seen); err == nil {
		t.Error("what was reported is still there")
	}
	const trace = `{"exitcode": 0, "out-data": "", "out-truncated": true, "exited": true}`
	if got := await(t, p, unseen); got != trace {
		t.Errorf("got %.200s, want %s", got, trace)
	}
	r := decode(t, await(t, p, large))
	if n := len(r.OutData); n < 5<<19 || n > 3<<20 || !*r.OutTruncated {
		t.Errorf("got %d bytes, truncated %t", n, *r.OutTruncated)
	}
	if r.ExitCode == nil || *r.ExitCode != 0 {
		t.Error("the program noticed")
	}
}

// A lost reply can be asked for again.
func TestReportedAgain(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	pid := start(t, p, shell("echo x; exit 3", qga.CaptureStdout))
	first := await(t, p, pid)
	for range 3 {
		if again, err := ask(t, p, pid); err != nil || again != first {
			t.Errorf("got %s, %v, want %s", again, err, first)
		}
	}
}

func TestReportedBounded(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	p.maxReported = 1 << 20
	var pids []int64
	for range 3 {
		pid := start(t, p, shell("head -c 3M /dev/zero", qga.CaptureStdout))
		await(t, p, pid)
		pids = append(pids, pid)
	}
	for i, pid := range pids {
		if _, err := ask(t, p, pid); (err == nil) != (i == 2) {
			t.Errorf("program %d: got %v", i, err)
		}
	}
}

// writerFunc is a client that takes replies by a function.
type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Output is forgotten while a slow client is taking it, and is there for that
// client to its end.
func TestForgottenWhileReported(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	pid := start(t, p, shell("yes | head -c 3M", qga.CaptureStdout))
	want := await(t, p, pid)
	p.mu.Lock()
	r := p.byPID[pid]
	s := r.streams[0]
	p.mu.Unlock()

	var out bytes.Buffer
	w := wire.NewWriter(writerFunc(func(b []byte) (int, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.byPID[pid] != nil {
			p.forget(r)
		}
		return out.Write(b)
	}))
	err := p.status(t.Context(), qga.ExecStatusArgs{PID: pid}, w)
	if err := errors.Join(err, w.Flush()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != want {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
	if s.data != nil {
		t.Error("the memory has not been given back")
	}
}

// Outcomes are forgotten, those that were reported and those that were not each
// after a time of their own.
func TestExpiry(t *testing.T) {
	known := func(p *Processes, pid int64) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.byPID[pid] != nil
	}
	gone := func(p *Processes, pid int64, begin time.Time, atLeast time.Duration) {
		t.Helper()
		eventually(t, "expiry", func() string {
			if known(p, pid) {
				return "still there"
			}
			return ""
		})
		if d := time.Since(begin); d < atLeast {
			t.Errorf("gone after %v, want %v at the least", d, atLeast)
		}
	}
	idle := func(p *Processes) {
		t.Helper()
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.due.IsZero() {
			t.Error("the timer is armed for nothing")
		}
	}

	p := newProcesses(t, DefaultGrace)
	p.seenFor, p.unseenFor = 100*time.Millisecond, time.Hour
	begin := time.Now()
	unseen := start(t, p, qga.ExecArgs{Path: "true"})
	seen := start(t, p, qga.ExecArgs{Path: "true"})
	await(t, p, seen)
	gone(p, seen, begin, p.seenFor)
	if !known(p, unseen) {
		t.Error("the outcome that nobody has asked for is gone, too")
	}
	await(t, p, unseen)
	gone(p, unseen, begin, p.seenFor)
	idle(p)
	// And once more.
	pid := start(t, p, qga.ExecArgs{Path: "true"})
	await(t, p, pid)
	gone(p, pid, begin, p.seenFor)

	p = newProcesses(t, DefaultGrace)
	p.seenFor, p.unseenFor = time.Hour, 600*time.Millisecond
	begin = time.Now()
	gone(p, start(t, p, qga.ExecArgs{Path: "true"}), begin, p.unseenFor)
	idle(p)
}

func TestRecordsBounded(t *testing.T) {
	p := newProcesses(t, DefaultGrace)
	p.maxRecords = 3
	first := start(t, p, qga.ExecArgs{Path: "true"})
	second := start(t, p, qga.ExecArgs{Path: "true"})
	await(t, p, second)
	eventually(t, "first program", func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.byPID[first].done {
			return "still running"
		}
		return ""
	})
	sleep := qga.ExecArgs{Path: "sleep", Arg: []string{"600"}}
	running := []int64{start(t, p, sleep), start(t, p, sleep)} // in the place of the second: it was reported
	if _, err := ask(t, p, second); err == nil {
		t.Error("the second program is still known")
	}
	running = append(running, start(t, p, sleep)) // in the place of the first
	if _, err := ask(t, p, first); err == nil {
		t.Error("the first program is still known")
	}
	_, err := p.exec(t.Context(), sleep)
	if err == nil || err.Error() != "too many programs are running: 3" {
		t.Errorf("got %v", err)
	}
	kill(t, running...)
	for _, pid := range running {
		await(t, p, pid)
	}
	// What does not start takes no place.
	for range 5 {
		if _, err := p.exec(t.Context(), qga.ExecArgs{Path: "/nope"}); err == nil {
			t.Error("got no error")
		}
	}
	await(t, p, start(t, p, qga.ExecArgs{Path: "true"}))
}

// The system gives numbers out again.
func TestPIDReused(t *testing.T) {
	p := New(Config{})
	add := func() *record {
		r := &record{pid: 77, outcome: outcome{streams: [2]*stream{{}, nil}}}
		if err := p.takePlace(); err != nil {
			t.Fatal(err)
		}
		p.insert(r)
		if !p.reserve(r, 10) {
			t.Fatal("no room")
		}
		return r
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := add() // its output is held open
	done := add()
	p.finish(done, 1, -1)
	p.report(done)
	if p.places != 2 || p.held != 20 || p.heldReported != 10 {
		t.Errorf("%d places, %d and %d bytes", p.places, p.held, p.heldReported)
	}
	latest := add()
	p.finish(waiting, 2, -1)
	if p.byPID[77] != latest || p.places != 1 || p.held != 10 || p.heldReported != 0 || p.seen.Len()+p.unseen.Len() != 0 {
		t.Errorf("%d places, %d and %d bytes, %d and %d outcomes",
			p.places, p.held, p.heldReported, p.seen.Len(), p.unseen.Len())
	}
}

// Ten thousand programs leave nothing behind but what may be asked for.
func TestManyPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	const programs = 10_000
	p := newProcesses(t, DefaultGrace)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			args := qga.ExecArgs{Path: "/bin/true"}
			if worker%2 == 0 {
				args.CaptureOutput = new(qga.CaptureSeparated)
				args.InputData = []byte("x")
			}
			for range programs / 4 {
				r, err := p.exec(t.Context(), args)
				if err != nil {
					t.Error(err)
					return
				}
				if worker < 2 {
					await(t, p, r.PID)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "end of programs", func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := len(p.byPID) - p.seen.Len() - p.unseen.Len(); n > 0 {
			return fmt.Sprintf("%d are running", n)
		}
		return ""
	})
	if len(p.byPID) > p.maxRecords {
		t.Errorf("%d programs are remembered", len(p.byPID))
	}
}

// Running programs cost no threads.
func TestThreads(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's pidfd")
	}
	threads := func() int {
		list, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	p := newProcesses(t, DefaultGrace)
	before := threads()
	var pids []int64
	for range 100 {
		pids = append(pids, start(t, p, shell("exec sleep 600", qga.CaptureSeparated)))
	}
	if after := threads(); after > before+20 {
		t.Errorf("%d threads for 100 programs, %d before", after, before)
	}
	kill(t, pids...)
	for _, pid := range pids {
		await(t, p, pid)
	}
}

// Kernels without a pidfd get a thread to wait.
func TestWaitWithoutPIDFD(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the others have none")
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	c, err := launch("sh", []string{"sh", "-c", "exit 5"}, nil, [3]int{fd, fd, fd})
	if err != nil {
		t.Fatal(err)
	}
	withoutPIDFD(&c)
	if code, signal := c.wait(); code != 5 || signal != -1 {
		t.Errorf("got %d, %d", code, signal)
	}
}

func TestAudit(t *testing.T) {
	var lines []string
	p := New(Config{Audit: func(format string, args ...any) {
		lines = append(lines, fmt.Sprintf(format, args...))
	}})
	pid := start(t, p, qga.ExecArgs{Path: "true", Arg: []string{"a b", "\"c\""}, Env: []string{"SECRET=1"}, InputData: []byte("secret")})
	ask(t, p, pid)
	want := []string{`guest-exec called: "true a b "c""`}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	await(t, p, pid)
}

// finish asks all the time until the program is gone: sleeping would take
// longer than the program.
func finish(b *testing.B, p *Processes, pid int64) {
	for {
		p.mu.Lock()
		done := p.byPID[pid].done
		p.mu.Unlock()
		if done {
			break
		}
		runtime.Gosched()
	}
	w := wire.NewWriter(io.Discard)
	if err := p.status(b.Context(), qga.ExecStatusArgs{PID: pid}, w); err != nil {
		b.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkTrue(b *testing.B) {
	p := newProcesses(b, DefaultGrace)
	b.ReportAllocs()
	for b.Loop() {
		finish(b, p, start(b, p, qga.ExecArgs{Path: "/bin/true"}))
	}
}

func BenchmarkCapture(b *testing.B) {
	const size = 8 << 20
	p := newProcesses(b, DefaultGrace)
	b.SetBytes(size)
	capture := qga.CaptureStdout
	for b.Loop() {
		finish(b, p, start(b, p, qga.ExecArgs{
			Path: "dd", Arg: []string{"if=/dev/zero", "bs=1M", "count=8"}, CaptureOutput: &capture,
		}))
	}
}
