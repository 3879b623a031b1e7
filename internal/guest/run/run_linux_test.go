package run

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func sh(script string) Command {
	return Command{Args: []string{"sh", "-c", script}, Action: "dance"}
}

func TestRun(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("echo $1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	notExecutable := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(notExecutable, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	with := func(input string) Command {
		c := sh("cat; echo end >&2")
		c.Input = []byte(input)
		return c
	}
	long := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB
	for _, test := range []struct {
		name        string
		c           Command
		output, err string
	}{
		{"success", sh("echo hello; echo there >&2"), "hello\nthere\n", ""},
		{"no input", sh("cat"), "", ""},
		{"input", with("user:secret\n"), "user:secret\nend\n", ""},
		{"empty input", with(""), "end\n", ""},
		{"much", with(long), long[:maxOutput], ""},
		{"input that nobody reads", Command{Args: []string{"true"}, Input: []byte(long)}, "", ""},
		{"exit", sh("exit 3"), "", "child process has failed to dance: exit status 3"},
		{"exit with words", sh("echo no music; exit 1"), "no music\n", "child process has failed to dance: no music\n"},
		{"signal", sh("kill -9 $$"), "", "child process has terminated abnormally"},
		{"signal with words", sh("printf dying; kill -9 $$"), "dying", "child process has terminated abnormally: dying"},
		{"absent", Command{Args: []string{"no-such-program"}, Action: "dance"}, "", "child process has failed to dance: failed to exec 'no-such-program': No such file or directory\n"},
		{"absent path", Command{Args: []string{"/no/such"}, Action: "dance"}, "", "child process has failed to dance: failed to exec '/no/such': No such file or directory\n"},
		{"empty", Command{Args: []string{""}, Action: "dance"}, "", "child process has failed to dance: failed to exec '': No such file or directory\n"},
		{"not executable", Command{Args: []string{notExecutable}, Action: "dance"}, "", "child process has failed to dance: failed to exec '" + notExecutable + "': Permission denied\n"},
		{"directory", Command{Args: []string{"/tmp"}, Action: "dance"}, "", "child process has failed to dance: failed to exec '/tmp': Permission denied\n"},
		{"script without an interpreter", Command{Args: []string{script, "x"}}, "x\n", ""},
		{"own session", sh("read -r stat < /proc/$$/stat; set -- $stat; [ $6 = $$ ]"), "", ""},
	} {
		output, err := Run(t.Context(), test.c)
		if string(output) != test.output {
			t.Errorf("%s: output %.100q, want %.100q", test.name, output, test.output)
		}
		if got := text(err); got != test.err {
			t.Errorf("%s: error %q, want %q", test.name, got, test.err)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestErrors(t *testing.T) {
	_, err := Run(t.Context(), sh("echo no; exit 4"))
	if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != 4 || string(e.Output) != "no\n" {
		t.Errorf("exit: got %#v", err)
	}
	_, err = Run(t.Context(), sh("kill $$"))
	if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != -1 {
		t.Errorf("signal: got %#v", err)
	}
	_, err = Run(t.Context(), Command{Args: []string{"/no/such"}})
	if e, ok := errors.AsType[*StartError](err); !ok || !errors.Is(e, syscall.ENOENT) {
		t.Errorf("start: got %#v", err)
	}
}

func TestPath(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for path, mode := range map[string]os.FileMode{
		filepath.Join(first, "tool"):   0o644,
		filepath.Join(second, "tool"):  0o755,
		filepath.Join(first, "locked"): 0o644,
	} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho $0\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", first+":"+second)
	output, err := Run(t.Context(), Command{Args: []string{"tool"}})
	if want := filepath.Join(second, "tool") + "\n"; string(output) != want || err != nil {
		t.Errorf("got %q, %v, want %q", output, err, want)
	}
	if _, err := Run(t.Context(), Command{Args: []string{"locked"}}); !errors.Is(err, syscall.EACCES) {
		t.Errorf("not executable: got %v", err)
	}
}

// A program that leaves a child behind with its output is waited for itself,
// and the child lives.
func TestBackgroundChild(t *testing.T) {
	began := time.Now()
	output, err := Run(t.Context(), sh("sleep 600 & echo $!"))
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Minute {
		t.Errorf("took %v", took)
	}
	child, err := strconv.Atoi(string(bytes.TrimSpace(output)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
		t.Errorf("the child is gone: %v", err)
	}
}

func TestLimit(t *testing.T) {
	c := sh("echo begun; (sleep 600; echo never) & echo $!; wait")
	var pid string
	for _, limit := range []time.Duration{300 * time.Millisecond, 3 * time.Second, 20 * time.Second} {
		c.Limit = limit
		began := time.Now()
		output, err := Run(t.Context(), c)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(text(err), "child process has failed to dance: ") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > limit+2*time.Minute {
			t.Errorf("took %v", took)
		}
		// On a busy machine it may not have come that far.
		if _, pid, _ = strings.Cut(string(bytes.TrimSpace(output)), "\n"); pid != "" {
			break
		}
	}
	child, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatalf("the child is %q: %v", pid, err)
	}
	for range 3000 { // it may be a zombie until init has seen it
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("child %d outlives the time limit", child)
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := Run(ctx, sh("sleep 60")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := Run(ctx, sh("exit 0")); !errors.Is(err, context.Canceled) {
		t.Errorf("afterwards: got %v", err)
	}
}

// No descriptor and no goroutine may stay, whatever became of the program.
func TestNothingLeft(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	commands := []Command{sh("exit 0"), sh("exit 1"), {Args: []string{"/no/such"}, Input: []byte("x")}, {Args: []string{"true"}, Input: make([]byte, 1<<20)}}
	round := func() {
		for _, c := range commands {
			_, _ = Run(t.Context(), c)
		}
	}
	round()
	before := descriptors()
	for range 10 {
		round()
	}
	after := descriptors()
	for end := time.Now().Add(time.Minute); after > before && time.Now().Before(end); after = descriptors() {
		time.Sleep(10 * time.Millisecond)
	}
	if after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
