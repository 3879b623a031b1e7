package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// load runs Load on a command line and, unless it is empty, a file that
// QGA_CONF names.
func load(t *testing.T, file string, args ...string) (*Config, Action, error) {
	t.Helper()
	return Load(source(t, file, args...))
}

func source(t *testing.T, file string, args ...string) Source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu-ga.conf")
	if file != "" {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Source{
		Args: append([]string{"qemu-ga"}, args...),
		LookupEnv: func(name string) (string, bool) {
			return path, name == "QGA_CONF"
		},
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, action, err := load(t, "")
	if err != nil || action != Run {
		t.Fatalf("got action %d, %v", action, err)
	}
	if c.Daemon || c.Verbose || c.RetryPath || c.Method != MethodVirtioSerial || c.Path != defaultPaths[MethodVirtioSerial] ||
		c.LogFile != "" || c.FsfreezeHook != "" || c.BlockRPCs != nil || c.AllowRPCs != nil || len(c.Warnings) != 0 {
		t.Errorf("got %+v", c)
	}
	if c.ExecPipeGrace != 2*time.Second || c.ExecResultLifetime != 600*time.Second || c.LogTarget != LogStderr {
		t.Errorf("got %+v", c.Extensions)
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args string
		want Action
	}{
		{"", Run},
		{"-v -p x", Run},
		{"-D", DumpConf},
		{"-V", ShowVersion},
		{"-V -x", ShowVersion},
		{"-D -h --foo", ShowHelp},
		{"-m nonsense -V", ShowVersion},
		{"-b help -x", ListCommands},
		{"-D -a ?", ListCommands},
		{"--blacklist help", ListCommands},
	}
	for _, tt := range tests {
		_, got, err := load(t, "", strings.Fields(tt.args)...)
		if got != tt.want || err != nil {
			t.Errorf("%q: got %d, %v, want %d", tt.args, got, err, tt.want)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const usage = "Unknown option, try 'qemu-ga --help' for more information.\n"
	tests := []struct {
		name, file, args string
		stdout, stderr   string
	}{
		{name: "option", args: "-x", stdout: usage, stderr: "qemu-ga: invalid option -- 'x'\n"},
		{name: "first of two", args: "-x --foo", stdout: usage, stderr: "qemu-ga: invalid option -- 'x'\n"},
		{name: "before -V", args: "-xV", stdout: usage, stderr: "qemu-ga: invalid option -- 'x'\n"},
		{
			name: "no path", args: "-m unix-listen",
			stderr: "qemu-ga: must specify a path for this channel: use -p PATH, or path=PATH in the configuration file\n",
		},
		{
			name: "method", args: "-m foo -p x",
			stderr: "qemu-ga: unsupported channel method/type: foo\n",
		},
		{
			name: "no such file", args: "-V -c /nonexist",
			stderr: "qemu-ga: error loading configuration from path: /nonexist, No such file or directory\n",
		},
		{
			name: "last -c counts", args: "-c /nonexist -c " + dir,
			stderr: "qemu-ga: error loading configuration from path: " + dir + ", Not a regular file\n",
		},
		{
			name: "file before options", args: "-x -c /nonexist",
			stderr: "qemu-ga: error loading configuration from path: /nonexist, No such file or directory\n",
		},
		{name: "syntax", file: "[general\n", stderr: `qemu-ga: error loading configuration from path: CONF, line 1: "[general" is not`},
		{name: "boolean", file: "[general]\nverbose=yes\n", stderr: `qemu-ga: error loading configuration from path: CONF, key "verbose" is "yes"`},
		{name: "escape", file: "[general]\npath=\\q\n", stderr: `qemu-ga: error loading configuration from path: CONF, key "path" has value`},
		{
			name: "misspelt extension", file: "[bellhop]\nexec-pipe-grce=3\n",
			stderr: "qemu-ga: error loading configuration from path: CONF, line 2: unknown key \"exec-pipe-grce\" in group [bellhop]\n",
		},
		{
			name: "bad extension", file: "[bellhop]\nexec-pipe-grace=-1\n",
			stderr: `qemu-ga: error loading configuration from path: CONF, line 2: key "exec-pipe-grace" is "-1": want a number`,
		},
		{
			name: "bad target", file: "[bellhop]\nlog-target=file\n",
			stderr: "qemu-ga: error loading configuration from path: CONF, line 2: key \"log-target\" is \"file\": want stderr, syslog or journal\n",
		},
		{
			name: "bad limit", file: "[bellhop]\nfreeze-limit=0\n",
			stderr: `qemu-ga: error loading configuration from path: CONF, line 2: key "freeze-limit" is "0": want a number between 1`,
		},
		{
			name: "bad directory", file: "[bellhop]\nfreeze-hook-dir=hooks.d\n",
			stderr: `qemu-ga: error loading configuration from path: CONF, line 2: key "freeze-hook-dir" is "hooks.d": want an absolute path`,
		},
		{
			name: "bad pattern", file: "[bellhop]\nnetwork-exclude=docker*,[a\n",
			stderr: "qemu-ga: error loading configuration from path: CONF, line 2: key \"network-exclude\" is \"docker*,[a\": \"[a\": syntax error in pattern\n",
		},
	}
	for _, tt := range tests {
		src := source(t, tt.file, strings.Fields(tt.args)...)
		_, _, err := Load(src)
		if err == nil {
			t.Errorf("%s: no error", tt.name)
			continue
		}
		var stdout, stderr bytes.Buffer
		if status := Report(err, "qemu-ga", &stdout, &stderr); status != 1 {
			t.Errorf("%s: status %d, want 1", tt.name, status)
		}
		conf, _ := src.LookupEnv("QGA_CONF")
		got := strings.ReplaceAll(stderr.String(), conf, "CONF")
		if !strings.HasPrefix(got, tt.stderr) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: stderr %q, want %q", tt.name, got, tt.stderr)
		}
		if stdout.String() != tt.stdout {
			t.Errorf("%s: stdout %q, want %q", tt.name, &stdout, tt.stdout)
		}
	}
}

func TestMissingFileIsFineUnlessNamed(t *testing.T) {
	t.Parallel()
	src := source(t, "", "-c", "")
	if _, _, err := Load(src); err == nil {
		t.Error("-c with a missing file: no error")
	}
	src.Args = src.Args[:1]
	if _, _, err := Load(src); err != nil {
		t.Errorf("QGA_CONF with a missing file: %v", err)
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	file := "[general]\nblock-rpcs=a,b\nblacklist=c,d\nallow-rpcs=x\n"
	c, _, err := load(t, file, "-b", "e,,f", "--blacklist=g", "-b", "", "-a", ", y")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"b", "a", "d", "c", "f", "", "e", "g"}; !slices.Equal(c.BlockRPCs, want) {
		t.Errorf("BlockRPCs = %q, want %q", c.BlockRPCs, want)
	}
	if want := []string{"x", " y", ""}; !slices.Equal(c.AllowRPCs, want) {
		t.Errorf("AllowRPCs = %q, want %q", c.AllowRPCs, want)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "deprecated 'blacklist' key") {
		t.Errorf("Warnings = %q", c.Warnings)
	}
}

func TestExtensions(t *testing.T) {
	t.Parallel()
	file := "[bellhop]\nexec-pipe-grace=0 \nexec-result-lifetime=30\nexec-max-records=5\nexec-max-output=1000\n" +
		"freeze-timeout=0\nfreeze-mount-limit=2\nfreeze-limit=3\nfreeze-exclude=/mnt/my disk,/srv/*\n" +
		"freeze-hook-dir=/etc/hooks.d\nfreeze-hook-limit=4\nfreeze-hook-errors=ignore\n" +
		"log-target=journal\nnetwork-exclude=docker*, veth? ,\n"
	c, _, err := load(t, file)
	if err != nil {
		t.Fatal(err)
	}
	want := Extensions{
		ExecResultLifetime: 30 * time.Second,
		ExecMaxRecords:     5,
		ExecMaxOutput:      1000,
		FreezeMountLimit:   2 * time.Second,
		FreezeLimit:        3 * time.Second,
		FreezeExclude:      []string{"/mnt/my disk", "/srv/*"},
		FreezeHookDir:      "/etc/hooks.d",
		FreezeHookLimit:    4 * time.Second,
		FreezeHookErrors:   HookErrorsIgnore,
		LogTarget:          LogJournal,
		NetworkExclude:     []string{"docker*", "veth?"},
	}
	if !reflect.DeepEqual(c.Extensions, want) {
		t.Errorf("got %+v, want %+v", c.Extensions, want)
	}

	dump := string(c.Dump())
	if !strings.HasSuffix(dump, "\n\n"+strings.NewReplacer("=0 \n", "=0\n", ", veth? ,", ",veth?").Replace(file)) {
		t.Errorf("dump %q", dump)
	}
	again, _, err := load(t, dump)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again.Extensions, want) {
		t.Errorf("after a dump: got %+v, want %+v", again.Extensions, want)
	}
}

func TestActivated(t *testing.T) {
	t.Parallel()
	src := source(t, "", "-m", "nonsense")
	src.Activated = MethodVsockListen
	c, _, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	if c.Method != MethodVsockListen || c.Path != "" {
		t.Errorf("got method %q, path %q", c.Method, c.Path)
	}
	if dump := string(c.Dump()); strings.Contains(dump, "\npath=") {
		t.Errorf("a path in %q", dump)
	}
}

func TestUsageNamesEveryOption(t *testing.T) {
	t.Parallel()
	text := Usage("qemu-ga", "1.2.3")
	if !strings.HasPrefix(text, "QEMU Guest Agent 1.2.3\n") {
		t.Errorf("begins with %q", text[:40])
	}
	for _, o := range options {
		if o.hidden || o.long == "" {
			continue
		}
		if !strings.Contains(text, "  -"+string(o.letter)+", --"+o.long) {
			t.Errorf("-%c, --%s is missing", o.letter, o.long)
		}
	}
	if strings.Contains(text, "@") {
		t.Errorf("a placeholder is left in %q", text)
	}
	for line := range strings.Lines(text) {
		if len(line) > 81 {
			t.Errorf("line of %d columns: %q", len(line)-1, line)
		}
	}
}
