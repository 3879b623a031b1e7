//go:build linux

package config

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The same command line and file given to the C agent and to Load: what
// reaches standard output and the exit status must be the same. Every case
// ends without the agent starting.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	agents := strings.Fields(os.Getenv("BELLHOP_C_AGENT"))
	if len(agents) == 0 {
		t.Skip("BELLHOP_C_AGENT names no C agent to compare with")
	}
	const g = "[general]\n"
	tests := []struct {
		file string
		args string // separated by single blanks, so that "" may stand between two
		new  bool   // only for agents since 10.0
	}{
		{args: "-D"},
		{args: "-vD"},
		{args: "-D -m isa-serial"},
		{args: "-Dmisa-serial"},
		{args: "-D --method=isa-serial"},
		{args: "-D --meth isa-serial"},
		{args: "-D -m unix-listen"},
		{args: "-D -m unix-listen -p /x"},
		{args: "-D -m unix-listen -p "},
		{args: "-D -m vsock-listen -p 3:4"},
		{args: "-D -m foo"},
		{args: "-D -m foo -p x"},
		{args: "-D -m "},
		{args: "-D --method="},
		{args: "-D -F"},
		{args: "-D -F /x"},
		{args: "-D -F/x"},
		{args: "-D --fsfreeze-hook=/x"},
		{args: "-D --fs="},
		{args: "-D -l /l -f /f -t /t -r -d"},
		{args: "-D --daemon --retry"},
		{args: "-D -l  -f  -t "},
		{args: "x -D y"},
		{args: "-D -- -m"},
		{args: "-D -"},
		{args: "-D -s x"},
		{args: "-D -b a,b -b c"},
		{args: "-D -b a,,b"},
		{args: "-D -b ,"},
		{args: "-D -b a, -b "},
		{args: "-D --bl x"},
		{args: "-D -b help,a"},
		{args: "-D -p a\nb\\\r\x01"},
		{args: "-D -p \t\n\\"},
		{args: "-D -p a\xffb"},
		{args: "-D -a x,y -a z", new: true},
		{args: "-D -c /nonexist", new: true},
		{args: "-V -c /nonexist", new: true},
		{args: "-D -c /dev/null", new: true},

		{args: "-V"},
		{args: "-h"},
		{args: "-b help"},
		{args: "-b ?"},
		{args: "-a help", new: true},
		{args: "-V -x"},
		{args: "-b help -x"},
		{args: "-x -V"},
		{args: "-xV"},
		{args: "--foo"},
		{args: "-m"},
		{args: "--method"},
		{args: "-D=x"},
		{args: "--verbose="},
		{args: "--ver"},
		{args: "--=x"},
		{args: "-s"},
		{args: "--service x"},

		{file: g + "verbose=1\ndaemon=true\nretry-path=0\n", args: "-D"},
		{file: g + " verbose = true \t\r\n", args: "-D"},
		{file: g + "verbose=yes\n", args: "-D"},
		{file: g + "verbose=true#c\n", args: "-D"},
		{file: g + "verbose=\n", args: "-D"},
		{file: g + "daemonize=maybe\n[x]\nverbose=no\n", args: "-D"},
		{file: g + "method=isa-serial\n", args: "-D -m unix-listen"},
		{file: g + "method=isa-serial\npath=/a\n", args: "-D -m unix-listen"},
		{file: g + "method=\n", args: "-D"},
		{file: g + "logfile=\npidfile=\nstatedir=\nfsfreeze-hook=\n", args: "-D"},
		{file: g + "fsfreeze-hook=/h\n", args: "-D -F"},
		{file: g + "path=  a\\sb  \n", args: "-D"},
		{file: g + "path=\\s\\ta\\n\\r\\\\\n", args: "-D"},
		{file: g + "path=a\\;b\n", args: "-D"},
		{file: g + "path=a\\", args: "-D"},
		{file: g + "path=a#b\n", args: "-D"},
		{file: g + "path=a\xffb\n", args: "-D"},
		{file: g + "path=a\x00b\n", args: "-D"},
		{file: g + "path=a\r", args: "-D"},
		{file: g + "path=a\npath=b\n[general]\nverbose=1\n", args: "-D"},
		{file: g + "path[de]=b\n", args: "-D"},
		{file: g + "path[d e]=b\n", args: "-D"},
		{file: g + "path [de]=b\n", args: "-D"},
		{file: g + "path\n", args: "-D"},
		{file: g + "#path=b\n \f#x\n", args: "-D"},
		{file: g + ";path=b\n", args: "-D"},
		{file: g + "block-rpcs=a,b\n", args: "-D -b c,d"},
		{file: g + "block-rpcs=a;b\n", args: "-D"},
		{file: g + "block-rpcs= a , b \n", args: "-D"},
		{file: g + "block-rpcs=help\n", args: "-D"},
		{file: g + "allow-rpcs=a,b\n", args: "-D -a c", new: true},
		{file: "path=x\n", args: "-D"},
		{file: "x", args: "-V"},
		{file: "x", args: "-x"},
		{file: "\xef\xbb\xbf" + g, args: "-D"},
		{file: "[general\n", args: "-D"},
		{file: "[]\n", args: "-D"},
		{file: "[general] x\n", args: "-D"},
		{file: "[a[b]\n", args: "-D"},
		{file: "[GENERAL]\npath=x\n", args: "-D"},
	}
	for _, agent := range agents {
		version, err := exec.Command(agent, "-V").Output()
		if err != nil {
			t.Fatalf("%s: %v", agent, err)
		}
		old := regexp.MustCompile(`Agent [1-9]\.`).Match(version)
		for _, tt := range tests {
			if old && tt.new {
				continue
			}
			file := tt.file
			if file == "" {
				file = "# nothing\n"
			}
			args := strings.Split(tt.args, " ")
			src := source(t, file, args...)
			conf, _ := src.LookupEnv("QGA_CONF")

			cmd := exec.Command(agent, args...)
			cmd.Env = append(os.Environ(), "QGA_CONF="+conf)
			want, err := cmd.Output()
			wantStatus := cmd.ProcessState.ExitCode()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatalf("%s: %v", agent, err)
			}

			got, gotStatus := answer(src, string(version))
			if old {
				got = strings.ReplaceAll(got, "allow-rpcs=\n", "")
			}
			if got == "usage or commands" && len(want) > 0 {
				want = []byte(got)
			}
			want = regexp.MustCompile(`try '.* --help'`).ReplaceAll(want, []byte("try 'qemu-ga --help'"))
			if got != string(want) || gotStatus != wantStatus {
				t.Errorf("%s %q, file %q:\ngot  %d %q\nwant %d %q", agent, args, tt.file, gotStatus, got, wantStatus, want)
			}
		}
	}
}

// answer is what this agent prints to standard output and its exit status,
// except for texts that are this agent's own.
func answer(src Source, version string) (stdout string, status int) {
	c, action, err := Load(src)
	var out, discard bytes.Buffer
	switch {
	case err != nil:
		status = Report(err, "qemu-ga", &out, &discard)
		return out.String(), status
	case action == DumpConf:
		return string(c.Dump()), 0
	case action == ShowVersion:
		return version, 0
	}
	return "usage or commands", 0
}
