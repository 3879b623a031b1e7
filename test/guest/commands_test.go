//go:build linux

package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
	"github.com/bellhop-vm/bellhop/test/vm"
)

func testAgentItself(t *testing.T, g *guest) {
	h := dial(t, g.Socket())
	h.sync(t)
	h.send(t, `{"execute":"guest-ping"}`)
	h.want(t, "{\"return\": {}}\n")
	h.send(t, `{"execute":"guest-sync","arguments":{"id":-9007199254740993}}`)
	h.want(t, "{\"return\": -9007199254740993}\n")
	h.send(t, `{"execute":"guest-sync-delimited","arguments":{"id":5},"id":"five"}`)
	h.want(t, "\xff{\"return\": 5, \"id\": \"five\"}\n")
	h.Close()

	c := connect(t, g.Socket())
	info := call(t, c, qga.GuestInfo, qga.Empty{})
	if info.Version != qga.ProtocolVersion {
		t.Errorf("version %s, want %s", info.Version, qga.ProtocolVersion)
	}
	for _, want := range []string{qga.Ping.Name, qga.FileRead.Name, qga.ExecStatus.Name, qga.GetOSInfo.Name} {
		i := slices.IndexFunc(info.SupportedCommands, func(c qga.CommandInfo) bool { return c.Name == want })
		if i < 0 || !info.SupportedCommands[i].Enabled || !info.SupportedCommands[i].SuccessResponse {
			t.Errorf("%s is missing or wrong in %+v", want, info.SupportedCommands)
		}
	}
}

func testSystem(t *testing.T, g *guest) {
	c := connect(t, g.Socket())

	before := shell(t, g, "date +%%s")
	now := call(t, c, qga.GetTime, qga.Empty{})
	after := shell(t, g, "date +%%s")
	var low, high int64
	fmt.Sscan(before, &low)
	fmt.Sscan(after, &high)
	if s := now / int64(time.Second); s < low || s > high {
		t.Errorf("time is %d, but date printed %d before and %d after it", now, low, high)
	}

	shell(t, g, "hostname other.example")
	if name := call(t, c, qga.GetHostName, qga.Empty{}).HostName; name != "other.example" {
		t.Errorf("host name %q, want the one that was set just now", name)
	}
	shell(t, g, "hostname guest")

	text := func(s *string) string {
		if s == nil {
			return "absent"
		}
		return *s
	}
	os := call(t, c, qga.GetOSInfo, qga.Empty{})
	for _, tt := range []struct {
		name      string
		got, want string
	}{
		{"kernel-release", text(os.KernelRelease), shell(t, g, "uname -r")},
		{"kernel-version", text(os.KernelVersion), shell(t, g, "uname -v")},
		{"machine", text(os.Machine), shell(t, g, "uname -m")},
		{"id", text(os.ID), "bellhop-test"},
		{"name", text(os.Name), "Bellhop test guest"},
		{"pretty-name", text(os.PrettyName), "Bellhop test guest 1 (busybox)"},
		{"version", text(os.Version), "1 (busybox)"},
		{"version-id", text(os.VersionID), "1"},
		{"variant", text(os.Variant), "absent"},
		{"variant-id", text(os.VariantID), "absent"},
	} {
		if want := strings.TrimSuffix(tt.want, "\n"); tt.got != want {
			t.Errorf("%s is %q, want %q", tt.name, tt.got, want)
		}
	}

	if zone := call(t, c, qga.GetTimezone, qga.Empty{}); text(zone.Zone) != "UTC" || zone.Offset != 0 {
		t.Errorf("time zone %s %d, want UTC 0", text(zone.Zone), zone.Offset)
	}
}

func testFiles(t *testing.T, g *guest) {
	c := connect(t, g.Socket())
	const path = "/tmp/files.txt"

	h := call(t, c, qga.FileOpen, qga.FileOpenArgs{Path: path, Mode: new("w+")})
	if w := call(t, c, qga.FileWrite, qga.FileWriteArgs{Handle: h, Data: []byte("hello world\n")}); w.Count != 12 {
		t.Errorf("wrote %d bytes, want 12", w.Count)
	}
	call(t, c, qga.FileFlush, qga.HandleArgs{Handle: h})
	if got := shell(t, g, "cat %[1]s; stat -c %%a %[1]s", path); got != "hello world\n666\n" {
		t.Errorf("in the guest the file and its mode are %q", got)
	}
	count := int64(3)
	call(t, c, qga.FileWrite, qga.FileWriteArgs{Handle: h, Data: []byte("more"), Count: &count})

	// Handles belong to the agent: hosts reconnect for every command.
	c.Close()
	c = connect(t, g.Socket())

	if s := call(t, c, qga.FileSeek, qga.FileSeekArgs{Handle: h, Offset: -9, Whence: qga.SeekEnd}); s.Position != 6 {
		t.Errorf("position %d, want 6", s.Position)
	}
	r := call(t, c, qga.FileRead, qga.FileReadArgs{Handle: h})
	if string(r.Data) != "world\nmor" || r.Count != 9 || !r.EOF {
		t.Errorf("read %+v", r)
	}
	if s := call(t, c, qga.FileSeek, qga.FileSeekArgs{Handle: h, Whence: qga.SeekSet}); s.Position != 0 {
		t.Errorf("position %d, want 0", s.Position)
	}
	count = 5
	if r := call(t, c, qga.FileRead, qga.FileReadArgs{Handle: h, Count: &count}); string(r.Data) != "hello" || r.EOF {
		t.Errorf("read %+v", r)
	}
	if s := call(t, c, qga.FileSeek, qga.FileSeekArgs{Handle: h, Offset: 1, Whence: qga.SeekCur}); s.Position != 6 {
		t.Errorf("position %d, want 6", s.Position)
	}
	pid := agentPID(t, g)
	if got := shell(t, g, "ls -l /proc/%d/fd | grep -c %s", pid, path); got != "1\n" {
		t.Errorf("the agent has the file open %s times, want once", got)
	}
	call(t, c, qga.FileClose, qga.HandleArgs{Handle: h})
	if got := shell(t, g, "ls -l /proc/%d/fd | grep -c %s; true", pid, path); got != "0\n" {
		t.Errorf("after the close the agent has the file open %s times", got)
	}
	callFails(t, c, qga.FileClose, qga.HandleArgs{Handle: h}, fmt.Sprintf("handle '%d' has not been found", h))

	a := call(t, c, qga.FileOpen, qga.FileOpenArgs{Path: path, Mode: new("a")})
	if a <= h {
		t.Errorf("handle %d after %d", a, h)
	}
	call(t, c, qga.FileWrite, qga.FileWriteArgs{Handle: a, Data: []byte("!\n")})
	call(t, c, qga.FileClose, qga.HandleArgs{Handle: a})
	if got := shell(t, g, "cat %s", path); got != "hello world\nmor!\n" {
		t.Errorf("after appending the file is %q", got)
	}
	if got, want := shell(t, g, "cat /var/lib/%s/qga.state", vm.AgentPort), fmt.Sprintf("[global]\nfd_counter=%d\n", a+1); got != want {
		t.Errorf("state is %q, want %q", got, want)
	}
}

func testFileErrors(t *testing.T, g *guest) {
	c := connect(t, g.Socket())
	shell(t, g, "mkfifo /tmp/fifo; mkdir /tmp/full; mount -t tmpfs -o size=64k full /tmp/full")
	defer shell(t, g, "umount /tmp/full")

	callFails(t, c, qga.FileOpen, qga.FileOpenArgs{Path: "/none"}, "failed to open file '/none' (mode: 'r'): No such file or directory")
	callFails(t, c, qga.FileOpen, qga.FileOpenArgs{Path: "/tmp", Mode: new("w")}, "failed to open file '/tmp' (mode: 'w'): Is a directory")
	callFails(t, c, qga.FileOpen, qga.FileOpenArgs{Path: "/tmp/fifo", Mode: new("w")}, "(mode: 'w'): No such device or address")

	dir := call(t, c, qga.FileOpen, qga.FileOpenArgs{Path: "/tmp"})
	callFails(t, c, qga.FileRead, qga.FileReadArgs{Handle: dir}, "failed to read file: Is a directory")
	call(t, c, qga.FileClose, qga.HandleArgs{Handle: dir})

	fifo := call(t, c, qga.FileOpen, qga.FileOpenArgs{Path: "/tmp/fifo", Mode: new("r+")})
	callFails(t, c, qga.FileRead, qga.FileReadArgs{Handle: fifo}, "failed to read file: Resource temporarily unavailable")
	callFails(t, c, qga.FileSeek, qga.FileSeekArgs{Handle: fifo}, "failed to seek file: Illegal seek")
	shell(t, g, "echo through the fifo >/tmp/fifo")
	if r := call(t, c, qga.FileRead, qga.FileReadArgs{Handle: fifo}); string(r.Data) != "through the fifo\n" || r.EOF {
		t.Errorf("read %+v", r)
	}
	call(t, c, qga.FileClose, qga.HandleArgs{Handle: fifo})

	full := call(t, c, qga.FileOpen, qga.FileOpenArgs{Path: "/tmp/full/file", Mode: new("w")})
	callFails(t, c, qga.FileWrite, qga.FileWriteArgs{Handle: full, Data: make([]byte, 256<<10)}, "failed to write to file: No space left on device")
	call(t, c, qga.FileClose, qga.HandleArgs{Handle: full})
}

func testLargeFile(t *testing.T, g *guest) {
	const path = "/tmp/large"
	data := make([]byte, qga.FileReadMax)
	rand.NewChaCha8([32]byte{}).Read(data)
	c := connect(t, g.Socket())
	c.Timeout = 2 * time.Minute

	begin := time.Now()
	if err := c.WriteFile(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
	rate := func() float64 { return float64(len(data)) / 1e6 / time.Since(begin).Seconds() }
	t.Logf("written at %.0f MB/s", rate())
	sum := sha256.Sum256(data)
	if got, want := shell(t, g, "sha256sum <%s", path), hex.EncodeToString(sum[:])+"  -\n"; got != want {
		t.Errorf("sum in the guest is %q, want %q", got, want)
	}

	begin = time.Now()
	got, err := c.ReadFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("read in pieces at %.0f MB/s", rate())
	if !bytes.Equal(got, data) {
		t.Error("read back in pieces, the data differ")
	}

	h := call(t, c, qga.FileOpen, qga.FileOpenArgs{Path: path})
	count := int64(qga.FileReadMax)
	begin = time.Now()
	r := call(t, c, qga.FileRead, qga.FileReadArgs{Handle: h, Count: &count})
	t.Logf("read at once at %.0f MB/s", rate())
	if !bytes.Equal(r.Data, data) || r.EOF || r.Count != count {
		t.Errorf("read back at once, the data differ, count is %d, eof is %t", r.Count, r.EOF)
	}
	if r := call(t, c, qga.FileRead, qga.FileReadArgs{Handle: h, Count: &count}); len(r.Data) != 0 || !r.EOF {
		t.Errorf("at the end: %d bytes, eof %t", len(r.Data), r.EOF)
	}
	call(t, c, qga.FileClose, qga.HandleArgs{Handle: h})

	// And the largest write that fits into a request.
	const most = 47 << 20
	h = call(t, c, qga.FileOpen, qga.FileOpenArgs{Path: path, Mode: new("w")})
	begin = time.Now()
	if w := call(t, c, qga.FileWrite, qga.FileWriteArgs{Handle: h, Data: data[:most]}); w.Count != most {
		t.Errorf("wrote %d bytes, want %d", w.Count, most)
	}
	t.Logf("written at once at %.0f MB/s", rate())
	call(t, c, qga.FileClose, qga.HandleArgs{Handle: h})
	sum = sha256.Sum256(data[:most])
	if got, want := shell(t, g, "sha256sum <%s; rm %[1]s", path), hex.EncodeToString(sum[:])+"  -\n"; got != want {
		t.Errorf("sum in the guest is %q, want %q", got, want)
	}
	// Two seconds after the last request, this gives back the memory.
	settles(t, g, 8<<10)
}

// run runs a program through the agent under test.
func run(t *testing.T, c *client.Client, args qga.ExecArgs) qga.ExecStatusResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := c.Exec(ctx, args)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func testExec(t *testing.T, g *guest) {
	c := connect(t, g.Socket())
	const script = "echo out; echo err >&2; exit 3"
	for mode, want := range map[qga.CaptureOutput][2]string{
		qga.CaptureNone:      {},
		qga.CaptureStdout:    {"out\n", ""},
		qga.CaptureStderr:    {"", "err\n"},
		qga.CaptureSeparated: {"out\n", "err\n"},
		qga.CaptureMerged:    {"out\nerr\n", ""},
	} {
		r := run(t, c, qga.ExecArgs{Path: "sh", Arg: []string{"-c", script}, CaptureOutput: &mode})
		if r.ExitCode == nil || *r.ExitCode != 3 || r.Signal != nil {
			t.Errorf("%s: exit code %v, signal %v, want 3 and none", mode, r.ExitCode, r.Signal)
		}
		if got := [2]string{string(r.OutData), string(r.ErrData)}; got != want {
			t.Errorf("%s: got %q, want %q", mode, got, want)
		}
		if (r.OutTruncated != nil) != (want[0] != "") || (r.ErrTruncated != nil) != (want[1] != "") {
			t.Errorf("%s: truncation is told of %v and %v", mode, r.OutTruncated, r.ErrTruncated)
		}
	}

	both := qga.CaptureSeparated
	input := bytes.Repeat([]byte("0123456789abcde\n"), 64<<10) // more than a pipe holds
	r := run(t, c, qga.ExecArgs{Path: "sha256sum", InputData: input, CaptureOutput: &both})
	sum := sha256.Sum256(input)
	if want := hex.EncodeToString(sum[:]) + "  -\n"; string(r.OutData) != want {
		t.Errorf("of its input the program made %q, want %q", r.OutData, want)
	}
	r = run(t, c, qga.ExecArgs{Path: "wc", Arg: []string{"-c"}, CaptureOutput: &both})
	if string(r.OutData) != "0\n" {
		t.Errorf("without input the program read %q bytes", r.OutData)
	}

	r = run(t, c, qga.ExecArgs{Path: "env", Env: []string{"PATH=/bin", "ONLY=this one"}, CaptureOutput: &both})
	if string(r.OutData) != "PATH=/bin\nONLY=this one\n" {
		t.Errorf("environment is %q", r.OutData)
	}
	r = run(t, c, qga.ExecArgs{Path: "/bin/env", Env: []string{}, CaptureOutput: &both})
	if len(r.OutData) != 0 {
		t.Errorf("empty environment is %q", r.OutData)
	}

	// A side effect that the witness sees.
	run(t, c, qga.ExecArgs{Path: "touch", Arg: []string{"/tmp/made by exec"}})
	shell(t, g, "rm '/tmp/made by exec'")

	// 20 MB of output, of which the protocol takes 16 MiB.
	r = run(t, c, qga.ExecArgs{Path: "head", Arg: []string{"-c", "20000000", "/dev/zero"}, CaptureOutput: &both})
	if len(r.OutData) != 16<<20 || r.OutTruncated == nil || !*r.OutTruncated {
		t.Errorf("%d bytes of output, truncated: %v", len(r.OutData), r.OutTruncated)
	}

	callFails(t, c, qga.Exec, qga.ExecArgs{Path: "/none"}, "Failed to execute child process \u201C/none\u201D (No such file or directory)")
	callFails(t, c, qga.ExecStatus, qga.ExecStatusArgs{PID: 1}, "PID 1 does not exist")
}

func testExecSignals(t *testing.T, g *guest) {
	c := connect(t, g.Socket())
	started := call(t, c, qga.Exec, qga.ExecArgs{Path: "sleep", Arg: []string{"1000"}})
	if r := call(t, c, qga.ExecStatus, qga.ExecStatusArgs(started)); r.Exited || r.ExitCode != nil || r.Signal != nil {
		t.Errorf("while it runs: %+v", r)
	}
	if got := shell(t, g, "tr '\\0' ' ' </proc/%d/cmdline; grep -e SigIgn -e SigBlk /proc/%[1]d/status; ls /proc/%[1]d/fd | wc -l", started.PID); got !=
		"sleep 1000 SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n3\n" {
		t.Errorf("command line, signals and number of descriptors are %q", got)
	}
	shell(t, g, "kill -9 %d", started.PID)
	var r qga.ExecStatusResult
	eventually(t, func() error {
		if r = call(t, c, qga.ExecStatus, qga.ExecStatusArgs(started)); !r.Exited {
			return fmt.Errorf("process %d does not end", started.PID)
		}
		return nil
	})
	if r.Signal == nil || *r.Signal != 9 || r.ExitCode != nil {
		t.Errorf("killed: exit code %v, signal %v", r.ExitCode, r.Signal)
	}

	// A daemon that is left behind and holds the pipes delays the news, but
	// not for as long as it lives.
	both := qga.CaptureSeparated
	begin := time.Now()
	r = run(t, c, qga.ExecArgs{Path: "sh", Arg: []string{"-c", "sleep 1000 & echo $!"}, CaptureOutput: &both})
	var daemon int
	if _, err := fmt.Sscan(string(r.OutData), &daemon); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("the end of a program was told after %v", d)
	}
	shell(t, g, "kill %d", daemon) // it is still there
}

func agentPID(t *testing.T, g *guest) int {
	t.Helper()
	pid, err := g.AgentPID(t.Context(), vm.AgentPort)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}
