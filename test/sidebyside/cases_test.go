//go:build linux

package sidebyside

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
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

	"github.com/bellhop-vm/bellhop/qga"
)

// A capture is what a C agent once replied to some bytes. Bytes are written as
// the code points of the same number.
type capture struct {
	Version, Group, Name, Note string
	Request, Response          string
	// Dynamic replies depend on the circumstances: on process ids, or on how
	// much the agent had read before.
	Dynamic bool
}

func latin1(s string) []byte {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}

func captures(t *testing.T, version, group string) []capture {
	t.Helper()
	f, err := os.Open("testdata/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []capture
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c capture
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if c.Version == version && c.Group == group {
			list = append(list, c)
		}
	}
	if err := lines.Err(); err != nil || len(list) == 0 {
		t.Fatalf("no captures of %s %s: %v", version, group, err)
	}
	return list
}

// ourReply is where our agent departs from the C agent on purpose, with what it
// replies instead; docs/coverage.md has the reasons.
var ourReply = map[string]string{
	"id-float-big-exp": `{"return": {}, "id": 1.7976931348623157e+308}` + "\n",
	// A negative number is no uint64.
	"arg-u64-negative": `{"error": {"class": "GenericError", "desc": "Parameter 'mem-blks[0].phys-index' expects uint64"}}` + "\n",
	// What was read before the pipe ran dry is not lost.
	"file-read-fifo-partial": `{"return": {"count": 1, "buf-b64": "eg==", "eof": false}}` + "\n",
	// Writes are not buffered: they fail at once, not at a later flush.
	"file-write-devfull": `{"error": {"class": "GenericError", "desc": "failed to write to file: No space left on device"}}` + "\n",
	"file-flush-devfull": `{"return": {}}` + "\n",
	// A result can be asked for again.
	"exec-status-again":   `{"return": {"exitcode": 0, "exited": true}}` + "\n",
	"exec-status-unknown": `{"error": {"class": "GenericError", "desc": "PID 0 does not exist"}}` + "\n",
	"exec-status-neg":     `{"error": {"class": "GenericError", "desc": "PID -5 does not exist"}}` + "\n",
}

// An agent under test: ours, or a C agent that shows that the captures hold.
type agentUnderTest struct {
	name, version string
	program       func(testing.TB) string
	ours          bool
}

var agentsUnderTest = []agentUnderTest{
	{"ours", "11.1.3", ourAgent, true},
	{"C 11.1.3", "11.1.3", cAgent, false},
	{"C 7.2.22", "7.2.22", oldCAgent, false},
}

func forEachAgent(t *testing.T, f func(*testing.T, agentUnderTest)) {
	for _, a := range agentsUnderTest {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			a.program(t)
			f(t, a)
		})
	}
}

// TestWire replays the captures of the stream: envelopes, argument errors,
// broken JSON.
func TestWire(t *testing.T) {
	forEachAgent(t, func(t *testing.T, a agentUnderTest) {
		path := start(t, a.program(t))
		n := 0
		for _, c := range captures(t, a.version, "wire") {
			if a.ours && !offers(t, path, c) {
				continue
			}
			want := withoutPosition(latin1(c.Response))
			check(t, a, c, want, withoutPosition(replyTo(t, path, latin1(c.Request), a.wanted(c, want))))
			n++
		}
		t.Logf("%d captures", n)
	})
}

// TestLists replays the captures of allow and block lists. The C agent was
// started anew for some of them.
func TestLists(t *testing.T) {
	args := map[string][]string{
		"blocked-ping":        {"-b", "guest-ping,guest-get-time"},
		"blocked-info":        {"-b", "guest-info,guest-sync"},
		"allow-ping":          {"-a", "guest-ping,guest-get-time"},
		"allow-and-block":     {"-a", "guest-ping,guest-info", "-b", "guest-ping"},
		"frozen-blocked-ping": {"-b", "guest-fsfreeze-thaw,guest-ping"},
	}
	forEachAgent(t, func(t *testing.T, a agentUnderTest) {
		if a.version != "11.1.3" {
			t.Skip("7.2 has no allow list and other words for a blocked command")
		}
		program := a.program(t)
		var path string
		astray := false
		for _, c := range captures(t, a.version, "rpc-lists") {
			if with, ok := args[c.Name]; ok {
				if c.Name == "frozen-blocked-ping" {
					// An earlier agent ended while file systems were frozen.
					dir := t.TempDir()
					if err := os.WriteFile(filepath.Join(dir, "qga.state.isfrozen"), nil, 0o600); err != nil {
						t.Fatal(err)
					}
					with = append(with, "-t", dir)
				}
				path = start(t, program, with...)
				astray = false
			}
			// What comes after a command that is not offered builds on it.
			astray = astray || a.ours && !offers(t, path, c)
			if c.Dynamic || astray {
				continue
			}
			want := latin1(c.Response)
			check(t, a, c, want, replyTo(t, path, latin1(c.Request), a.wanted(c, want)))
		}
	})
}

// TestFilesAndExec replays the captures of the file and process commands, in
// order, on one agent with a fresh state.
func TestFilesAndExec(t *testing.T) {
	forEachAgent(t, func(t *testing.T, a agentUnderTest) {
		// Every few runs the C agent 11.1.3 stops answering for good after a
		// guest-exec that captures standard error only. Ours may not.
		for range 4 {
			if replayCommands(t, a) {
				return
			}
		}
		t.Error("no attempt got through")
	})
}

// replayCommands returns false when the C agent stopped answering, and when a
// program had ended before it could be seen to run.
func replayCommands(t *testing.T, a agentUnderTest) bool {
	dir := filepath.Join(t.TempDir(), "files")
	fifo := filepath.Join(dir, "fifo")
	for _, err := range []error{
		os.Mkdir(dir, 0o755),
		syscall.Mkfifo(fifo, 0o644),
		os.WriteFile(filepath.Join(dir, "ns"), []byte("echo hi $0\n"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	path := start(t, a.program(t))

	var writer *os.File
	defer func() { writer.Close() }()
	pids := map[string]string{}
	var started time.Time // when the last program was
	local := func(s string) string { return strings.ReplaceAll(s, "/srv/files", dir) }
	for _, c := range captures(t, a.version, "commands") {
		began := time.Now()
		switch c.Name {
		case "file-read-fifo-empty":
			var err error
			if writer, err = os.OpenFile(fifo, os.O_WRONLY, 0); err != nil {
				t.Fatal(err)
			}
		case "file-read-fifo-data":
			fmt.Fprint(writer, "xyzz")
		case "file-open-fifo-w":
			writer.Close()
		case "exec-status-script-noshebang":
			out := base64.StdEncoding.EncodeToString([]byte("hi " + dir + "/ns\n"))
			c.Response = strings.ReplaceAll(c.Response, base64.StdEncoding.EncodeToString([]byte("hi /srv/files/ns\n")), out)
		case "exec-status-bg-holds-pipe-end":
			time.Sleep(1300 * time.Millisecond)
		}
		request, want := local(c.Request), []byte(local(c.Response))
		for captured, actual := range pids {
			if strings.Contains(request, captured) {
				request = strings.ReplaceAll(request, captured, actual)
				break
			}
		}
		runs := []byte(`"exited": false`)
		ends := strings.HasPrefix(c.Name, "exec-status-") && !bytes.Contains(want, runs)
		if ends {
			awaitExit(t, path, request)
		}
		got := replyTo(t, path, []byte(request), a.wanted(c, want))
		for end := time.Now().Add(patience); ends && bytes.Contains(got, runs) && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond) // the agent has not seen it yet
			got = replyTo(t, path, []byte(request), a.wanted(c, want))
		}
		// It is about a program that runs for a second.
		if bytes.Contains(want, runs) && !bytes.Contains(got, runs) && time.Since(started) > time.Second {
			t.Logf("%s came too late: %q", c.Name, got)
			return false
		}
		if !a.ours && len(got) == 0 {
			t.Logf("%s stopped answering at %s", a.name, c.Name)
			return false
		}
		if pid, ok := pidIn(want); ok {
			actual, ok := pidIn(got)
			if !ok {
				t.Errorf("%s: got %q, want a process id", c.Name, got)
			}
			pids[pid] = actual
			started = began
			continue
		}
		check(t, a, c, want, got)
	}
	return true
}

// pidIn returns `"pid": N` of a reply to guest-exec.
func pidIn(reply []byte) (string, bool) {
	pid, ok := bytes.CutPrefix(reply, []byte(`{"return": {`))
	if !ok || !bytes.HasPrefix(pid, []byte(`"pid": `)) {
		return "", false
	}
	return string(bytes.TrimSuffix(pid, []byte("}}\n"))), true
}

// awaitExit waits for the process that the request asks about to end, without
// asking for it: the C agent tells only once.
func awaitExit(t *testing.T, path, request string) {
	t.Helper()
	var r struct{ Arguments struct{ PID int } }
	if err := json.Unmarshal([]byte(request), &r); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.Arguments.PID))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			break
		}
	}
	time.Sleep(30 * time.Millisecond) // for the agent to see it
}

// wanted is what the agent is expected to reply to c, given the C agent's reply.
func (a agentUnderTest) wanted(c capture, reply []byte) []byte {
	if ours, ok := ourReply[c.Name]; a.ours && ok {
		return []byte(ours)
	}
	return reply
}

func check(t *testing.T, a agentUnderTest, c capture, reply, got []byte) {
	t.Helper()
	want := a.wanted(c, reply)
	if a.ours && !bytes.Equal(want, reply) && bytes.Equal(got, reply) {
		t.Errorf("%s is listed as a deviation but is none", c.Name)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s (%s): request %q\n got %q\nwant %q", c.Name, c.Note, c.Request, got, want)
	}
}

// offers reports whether our agent has the command that the capture calls, if
// it calls one of the protocol.
func offers(t *testing.T, path string, c capture) bool {
	t.Helper()
	for _, d := range qga.Commands() {
		name := d.Describe().Name
		if strings.Contains(c.Request, `"`+name+`"`) && name != qga.GetDevices.Name {
			probe := fmt.Appendf(nil, `{"execute":%q,"arguments":{"no-such-member":1}}`, name)
			reply := replyTo(t, path, probe, []byte("\n"))
			return !bytes.Contains(reply, []byte("has not been found"))
		}
	}
	return true
}

// answerLimit is how long replyTo waits for what is to come. It is no longer because
// the C agent at times stops answering.
const answerLimit = 15 * time.Second

// replyTo sends the request and returns the reply. It reads as much as want
// has, then waits a little for more, which should not come.
func replyTo(t *testing.T, path string, request, want []byte) []byte {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	var got []byte
	buf := make([]byte, 64<<10)
	for {
		limit := answerLimit
		// With a position the C agent's reply is longer: wait for lines.
		if bytes.Count(got, []byte("\n")) >= bytes.Count(want, []byte("\n")) {
			limit = 25 * time.Millisecond
		}
		_ = conn.SetReadDeadline(time.Now().Add(limit))
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatalf("%q: after %q: %v", request, got, err)
		}
	}
	// The C agent goes on with half a request for the next client.
	request, reply := mark(1)
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(answerLimit))
	for rest := []byte(nil); !bytes.HasSuffix(rest, reply); {
		n, err := conn.Read(buf)
		if rest = append(rest, buf[:n]...); err != nil {
			// The sync may be blocked; its error will do.
			break
		}
		if bytes.HasSuffix(rest, []byte("is not allowed\"}}\n")) {
			break
		}
	}
	return got
}

// ourAgent builds our agent.
func ourAgent(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu-ga")
	cmd := exec.Command("go", "build", "-o", path, "github.com/bellhop-vm/bellhop/cmd/qemu-ga")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}
