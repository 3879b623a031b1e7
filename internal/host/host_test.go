package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/qga"
)

// serve has fn serve the connections of a unix socket.
func serve(t *testing.T, path string, fn func(context.Context, net.Conn)) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		l.Close()
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go fn(ctx, conn)
		}
	}()
}

// guest puts an agent of ours, in which guest-exec is turned off, at the socket.
func guest(t *testing.T, path string) {
	t.Helper()
	noExec := func(c *qga.Info) agent.Verdict {
		if c.Name == qga.Exec.Name {
			return agent.Deny
		}
		return agent.Pass
	}
	a := agent.New(logging.New(logging.Discard, logging.Discard, false), []agent.Gate{noExec},
		agent.Handle(qga.GetHostName, func(context.Context, qga.Empty) (qga.HostName, error) {
			return qga.HostName{HostName: "größe \x1b[31m\u009b \"q\" \\ \U0001F600 \n \u0000"}, nil
		}),
		agent.Handle(qga.FileOpen, func(_ context.Context, a qga.FileOpenArgs) (qga.Handle, error) {
			return 0, qga.Failure("failed to open file '" + a.Path + "'\x1b[2J")
		}),
		agent.Handle(qga.FileSeek, func(ctx context.Context, a qga.FileSeekArgs) (qga.FileSeekResult, error) {
			return qga.FileSeekResult{Position: a.Offset}, nil
		}),
		agent.Handle(qga.FSTrim, func(ctx context.Context, _ qga.FSTrimArgs) (qga.FSTrimResult, error) {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Minute):
			}
			return qga.FSTrimResult{}, errors.New("interrupted")
		}),
		agent.Handle(qga.Exec, func(context.Context, qga.ExecArgs) (qga.ExecResult, error) {
			return qga.ExecResult{}, nil
		}),
	)
	serve(t, path, func(ctx context.Context, conn net.Conn) {
		_ = a.Serve(ctx, conn) // ends with the client
	})
}

var numbers = regexp.MustCompile(`[0-9]+\.[0-9]{2} ms|-us":[0-9]+`)

// run runs a command line in which DIR stands for the directory, in what is
// printed too. Durations are printed as N.
func run(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", dir)
	}
	var out, errOut bytes.Buffer
	code = Run(context.Background(), "v1", args, &out, &errOut)
	golden := func(b bytes.Buffer) string {
		s := strings.ReplaceAll(b.String(), dir, "DIR")
		return numbers.ReplaceAllStringFunc(s, func(m string) string {
			if strings.HasSuffix(m, "ms") {
				return "N ms"
			}
			return `-us":N`
		})
	}
	return code, golden(out), golden(errOut)
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	guest(t, dir+"/vm")
	serve(t, dir+"/monitor", func(_ context.Context, conn net.Conn) {
		_, _ = conn.Write([]byte(`{"QMP": {}}` + "\r\n"))
	})
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/dead", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()

	const callUsage = "Usage: bellhop call TARGET COMMAND [ARGUMENTS] [flags]\nSee 'bellhop call --help'.\n"
	for _, tc := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{args: "version", stdout: "bellhop v1, protocol of QEMU " + qga.ProtocolVersion + "\n"},
		{args: "version -o json", stdout: `{"version":"v1","protocol":"` + qga.ProtocolVersion + "\"}\n"},

		{args: "ping DIR/vm", stdout: "unix:DIR/vm answers: round trip N ms, first answer after N ms\n"},
		{
			args:   "-o json --timeout 0 ping unix:DIR/vm",
			stdout: `{"target":"unix:DIR/vm","first-answer-us":N,"round-trip-us":N}` + "\n",
		},

		{args: "info DIR/vm", stdout: `Version:   ` + qga.ProtocolVersion + `
Commands:  9, 1 of them turned off

COMMAND               ENABLED  SINCE
guest-exec            no       2.5
guest-file-open       yes      0.15.0
guest-file-seek       yes      0.15.0
guest-fstrim          yes      1.2
guest-get-host-name   yes      2.10
guest-info            yes      0.15.0
guest-ping            yes      0.15.0
guest-sync            yes      0.15.0
guest-sync-delimited  yes      1.1
`},

		{
			args:   `call|DIR/vm|guest-file-seek|{"handle": 1, "offset": 5, "whence": "set"}`,
			stdout: "{\n  \"eof\": false,\n  \"position\": 5\n}\n",
		},
		{
			args:   `call|-o|json|DIR/vm|guest-file-seek|{"handle": 1, "offset": 5, "whence": "set"}`,
			stdout: "{\"eof\": false, \"position\": 5}\n",
		},
		{
			// The letters as they are, what a terminal obeys not.
			args:   "call DIR/vm guest-get-host-name",
			stdout: "{\n  \"host-name\": \"größe \\u001B[31m\\u009B \\\"q\\\" \\\\ \U0001F600 \\n \\u0000\"\n}\n",
		},

		{
			args: `call|DIR/vm|guest-file-open|{"path": "/x"}`, code: 1,
			stderr: `bellhop: guest-file-open: failed to open file '/x'\u001B[2J` + "\n",
		},
		{
			args: `call|DIR/vm|guest-exec|{"path": "/x"}`, code: 1,
			stderr: `bellhop: guest-exec: Command guest-exec has been disabled: the command is not allowed
The command is turned off in the guest. See block-rpcs and allow-rpcs there: in
/etc/qemu/qemu-ga.conf, in the options of its service (systemctl cat qemu-guest-agent),
in /etc/sysconfig/qemu-ga or /etc/default/qemu-guest-agent. While file systems are
frozen most commands are off too.
`,
		},
		{
			args: "call DIR/vm guest-get-devices", code: 1,
			stderr: `bellhop: guest-get-devices: The command guest-get-devices has not been found
Agents have the command on Windows only.
`,
		},
		{
			args: "call DIR/vm guest-get-time", code: 1,
			stderr: `bellhop: guest-get-time: The command guest-get-time has not been found
The agent in the guest was built without it.
`,
		},
		{
			args: "call DIR/vm get-time", code: 1,
			stderr: `bellhop: get-time: The command get-time has not been found
The protocol has no such command. 'bellhop info unix:DIR/vm' lists those of the agent.
`,
		},

		{args: "pin", code: 2, stderr: "bellhop: unknown command \"pin\" for \"bellhop\"\n\nDid you mean this?\n\tping\nSee 'bellhop --help'.\n"},
		{args: "ping", code: 2, stderr: "bellhop: accepts 1 arg(s), received 0\nUsage: bellhop ping TARGET [flags]\nSee 'bellhop ping --help'.\n"},
		{args: "call DIR/vm", code: 2, stderr: "bellhop: accepts between 2 and 3 arg(s), received 1\n" + callUsage},
		{args: "call -o yaml DIR/vm guest-ping", code: 2, stderr: "bellhop: invalid argument \"yaml\" for \"-o, --output\" flag: want text or json\n" + callUsage},
		{args: "call --timeout -1s DIR/vm guest-ping", code: 2, stderr: "bellhop: --timeout must not be negative\n" + callUsage},
		{args: "ping vm", code: 2, stderr: "bellhop: \"vm\" is not a target: want unix:PATH\n"},
		{args: "ping unix:", code: 2, stderr: "bellhop: the target \"unix:\" lacks a path\n"},
		{
			args: `call|DIR/vm|guest-file-open|{"ä": "x",}`, code: 2,
			stderr: "bellhop: the arguments are not JSON: invalid character '}' looking for beginning of object key string (character 11)\n",
		},
		{args: `call|DIR/vm|guest-file-open|{"path":`, code: 2, stderr: "bellhop: the arguments are not JSON: unexpected end of JSON input (character 8)\n"},
		{args: `call|DIR/vm|guest-file-open|{} {}`, code: 2, stderr: "bellhop: the arguments are not JSON: invalid character '{' after top-level value (character 4)\n"},
		{args: `call|DIR/vm|guest-file-open|["/x"]`, code: 2, stderr: "bellhop: the arguments are not a JSON object such as {\"path\": \"/etc/hostname\"}\n"},
		{args: `call|DIR/vm|guest-file-open|null`, code: 2, stderr: "bellhop: the arguments are not a JSON object such as {\"path\": \"/etc/hostname\"}\n"},

		{
			args: "ping DIR/none", code: 3,
			stderr: `bellhop: guest-ping: cannot reach the agent: dial unix DIR/none: connect: no such file or directory
There is no DIR/none. Is the guest running, and does it have a channel for the agent?
libvirt keeps the sockets in /run/libvirt/qemu/channel (older ones in
/var/lib/libvirt/qemu/channel/target), Proxmox VE in /var/run/qemu-server/ID.qga.
`,
		},
		{
			args: "ping DIR/file", code: 3,
			stderr: "bellhop: guest-ping: cannot reach the agent: dial unix DIR/file: connect: connection refused\nDIR/file is not a socket.\n",
		},
		{
			args: "ping DIR/dead", code: 3,
			stderr: "bellhop: guest-ping: cannot reach the agent: dial unix DIR/dead: connect: connection refused\n" +
				"Nobody listens there any more: the guest is off, and has left the socket behind.\n",
		},
		{
			args: "info DIR/monitor", code: 3,
			stderr: "bellhop: guest-info: the agent does not answer: not the guest agent protocol: this is QEMU's monitor (QMP)\n" +
				"The target has to be the socket of the guest agent's channel.\n",
		},
	} {
		separator := " "
		if strings.Contains(tc.args, "|") {
			separator = "|"
		}
		t.Run(tc.args, func(t *testing.T) {
			code, stdout, stderr := run(t, dir, strings.Split(tc.args, separator)...)
			if code != tc.code {
				t.Errorf("the exit code is %d, want %d", code, tc.code)
			}
			if stdout != tc.stdout {
				t.Errorf("printed:\n%s\nwant:\n%s", stdout, tc.stdout)
			}
			if stderr != tc.stderr {
				t.Errorf("the error is:\n%s\nwant:\n%s", stderr, tc.stderr)
			}
		})
	}
}

// TestTimeout has a command take longer than it may. A busy machine may need some
// time to find the agent, too.
func TestTimeout(t *testing.T) {
	dir := t.TempDir()
	guest(t, dir+"/vm")
	var code int
	var stderr string
	for _, timeout := range []string{"100ms", "2s", "20s"} {
		code, _, stderr = run(t, dir, "--timeout", timeout, "call", "DIR/vm", "guest-fstrim")
		if code != exitNoAgent {
			break
		}
	}
	want := `bellhop: guest-fstrim: timed out waiting for the reply
The agent is there, but the command takes longer, and may still be at work. --timeout gives it more time.
`
	if code != exitNoReply || stderr != want {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

// TestGone has the agent go, with the request in its hands.
func TestGone(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir+"/vm", func(_ context.Context, conn net.Conn) { old(t, conn) })
	code, _, stderr := run(t, dir, "call", "DIR/vm", "guest-fsfreeze-freeze")
	want := `bellhop: guest-fsfreeze-freeze: connection lost waiting for the reply: unexpected EOF
The agent, or the guest, went away. Whether the command was carried out is not known.
`
	if code != exitNoReply || stderr != want {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir+"/vm", func(ctx context.Context, _ net.Conn) { <-ctx.Done() })
	code, _, stderr := run(t, dir, "--timeout", "50ms", "ping", "DIR/vm")
	if code != exitNoAgent || !strings.Contains(stderr, "does not answer") || !strings.Contains(stderr, "systemctl status qemu-guest-agent") {
		t.Errorf("exit code %d, %s", code, stderr)
	}

	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	var out bytes.Buffer
	if code := Run(ctx, "v1", []string{"ping", dir + "/vm"}, &out, &out); code != exitInterrupted {
		t.Errorf("interrupted, the exit code is %d: %s", code, &out)
	}
}

// A full is a standard output that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vm")
	guest(t, path)
	var errOut bytes.Buffer
	code := Run(context.Background(), "v1", []string{"ping", path}, full{}, &errOut)
	if want := "bellhop: cannot write the output: no space left on device\n"; code != exitFailed || errOut.String() != want {
		t.Errorf("exit code %d, %q", code, errOut.String())
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"help"}, {"--help"}, {"-h"}} {
		code, stdout, stderr := run(t, "/none", args...)
		if code != exitOK || stderr != "" || !strings.Contains(stdout, "Exit codes:") {
			t.Errorf("%q: %d, %s%s", args, code, stdout, stderr)
		}
	}
}

func TestCompletion(t *testing.T) {
	code, stdout, _ := run(t, "/none", "__complete", "call", "/x", "guest-fsfreeze-f")
	want := "guest-fsfreeze-freeze\tsince 0.15.0\nguest-fsfreeze-freeze-list\tsince 2.2\n:4\n"
	if code != exitOK || stdout != want {
		t.Errorf("the commands are %q, want %q", stdout, want)
	}
	if _, stdout, _ = run(t, "/none", "__complete", "ping", "-o", ""); stdout != "text\njson\n:4\n" {
		t.Errorf("the formats are %q", stdout)
	}
}

func TestOlder(t *testing.T) {
	for _, tc := range []struct {
		version, than string
		want          bool
	}{
		{"7.2.22", "9.1", true},
		{"2.5", "2.10", true},
		{"10.0", "9.1", false},
		{"9.1.0", "9.1", false},
		{"9.1", "9.1", false},
		{"0.15.0", "1.1", true},
		{"2.10", "2.5", false},
		{"", "1.1", true},
	} {
		if got := older(tc.version, tc.than); got != tc.want {
			t.Errorf("older(%q, %q) = %v", tc.version, tc.than, got)
		}
	}
}

func TestAdviceOnAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vm")
	serve(t, path, func(_ context.Context, conn net.Conn) {
		old(t, conn)
	})
	code, _, stderr := run(t, filepath.Dir(path), "call", path, "guest-get-load")
	want := `bellhop: guest-get-load: The command guest-get-load has not been found
The agent in the guest is older than the command: it is of QEMU 7.2.22, guest-get-load came with 10.0.
`
	if code != exitFailed || stderr != want {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

// old is an agent of 7.2.22 that has few commands, and dies of a freeze.
func old(t *testing.T, conn net.Conn) {
	defer conn.Close()
	in := json.NewDecoder(skipFF{conn})
	for {
		var request struct {
			Execute   string
			Arguments struct{ ID int64 }
		}
		if in.Decode(&request) != nil {
			return
		}
		var reply string
		switch request.Execute {
		case qga.SyncDelimited.Name:
			reply = fmt.Sprintf("\xff"+`{"return": %d}`, request.Arguments.ID)
		case qga.GuestInfo.Name:
			reply = `{"return": {"version": "7.2.22", "supported_commands": []}}`
		case qga.FSFreezeFreeze.Name:
			return
		default:
			reply = `{"error": {"class": "CommandNotFound", "desc": "The command ` + request.Execute + ` has not been found"}}`
		}
		if _, err := io.WriteString(conn, reply+"\n"); err != nil {
			t.Error(err)
			return
		}
	}
}

// skipFF leaves out the byte that begins a synchronisation.
type skipFF struct{ r io.Reader }

func (s skipFF) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	return copy(b, bytes.ReplaceAll(b[:n], []byte{0xFF}, nil)), err
}
