package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/guest/run/runtest"
	"github.com/bellhop-vm/bellhop/internal/logging"
)

// A stage has hooks that note in a file what they are told.
type stage struct {
	t    testing.TB
	dir  string // holds the directory "hooks" and the file "notes"
	mu   sync.Mutex
	log  []string
	hook *Hooks
}

func newStage(t testing.TB, change func(dir string, cfg *Config)) *stage {
	s := &stage{t: t, dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(s.dir, "hooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTES", filepath.Join(s.dir, "notes"))
	note := func(format string, args ...any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log = append(s.log, fmt.Sprintf(format, args...))
	}
	cfg := Config{
		Dir:   filepath.Join(s.dir, "hooks"),
		Run:   run.Run,
		Audit: note,
		Log:   func(_ logging.Level, format string, args ...any) { note(format, args...) },
	}
	if change != nil {
		change(s.dir, &cfg)
	}
	s.hook = New(cfg)
	return s
}

// add adds a hook that notes its name and argument, and then runs the script.
func (s *stage) add(name, script string) {
	s.t.Helper()
	text := "#!/bin/sh\necho \"${0##*/} $*\" >>\"$NOTES\"\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// notes returns what the hooks have noted since the last call.
func (s *stage) notes() string {
	s.t.Helper()
	name := filepath.Join(s.dir, "notes")
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	_ = os.Remove(name)
	return strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", ", ")
}

// logged reports whether a message has the words.
func (s *stage) logged(words string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.log {
		if strings.Contains(m, words) {
			return true
		}
	}
	return false
}

func (s *stage) check(what string, err error, wantErr, wantNotes string) {
	s.t.Helper()
	got := ""
	if err != nil {
		got = strings.ReplaceAll(err.Error(), s.dir, "DIR")
	}
	if got != wantErr {
		s.t.Errorf("%s: error %q, want %q", what, got, wantErr)
	}
	if notes := s.notes(); notes != wantNotes {
		s.t.Errorf("%s: ran %q, want %q", what, notes, wantNotes)
	}
}

func withProgram(dir string, cfg *Config) { cfg.Program = filepath.Join(dir, "main") }

func TestOrder(t *testing.T) {
	s := newStage(t, withProgram)
	s.add("main", "")
	for _, name := range []string{"b", "a", "Z", "10", "9", "é"} {
		s.add("hooks/"+name, "")
	}
	for _, name := range []string{".hidden", "x~", "x.bak", "x.orig", "x.sample", "x.rpmnew", "x.rpmsave", "x.dpkg-dist"} {
		s.add("hooks/"+name, "")
	}
	s.add("hooks/text", "")
	if err := os.Chmod(filepath.Join(s.dir, "hooks/text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "hooks/directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"link": "b", "dangling": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(s.dir, "hooks", from)); err != nil {
			t.Fatal(err)
		}
	}
	s.check("freeze", s.hook.Freeze(t.Context()), "",
		"main freeze, 10 freeze, 9 freeze, Z freeze, a freeze, b freeze, link freeze, é freeze")
	s.check("thaw", s.hook.Thaw(t.Context()), "",
		"é thaw, link thaw, b thaw, a thaw, Z thaw, 9 thaw, 10 thaw, main thaw")
	if !s.logged("executing fsfreeze hook with arg 'thaw'") {
		t.Errorf("no accounting message: %q", s.log)
	}
}

func TestNone(t *testing.T) {
	for name, change := range map[string]func(string, *Config){
		"empty directory": nil,
		"no directory":    func(dir string, cfg *Config) { cfg.Dir = filepath.Join(dir, "absent") },
		"nothing": func(_ string, cfg *Config) {
			cfg.Dir = ""
			cfg.Run = (&runtest.Recorder{Reply: func(context.Context, run.Command) ([]byte, error) {
				t.Error("something was run")
				return nil, nil
			}}).Run
		},
	} {
		s := newStage(t, change)
		s.check(name, s.hook.Freeze(t.Context()), "", "")
		s.check(name, s.hook.Thaw(t.Context()), "", "")
	}
}

func TestUnreadableDirectory(t *testing.T) {
	asFile := func(dir string, cfg *Config) {
		withProgram(dir, cfg)
		cfg.Dir = filepath.Join(dir, "main")
	}
	s := newStage(t, asFile)
	s.add("main", "")
	const failure = "cannot list fsfreeze hooks: open DIR/main: not a directory"
	s.check("freeze", s.hook.Freeze(t.Context()), failure, "")
	s.check("thaw", s.hook.Thaw(t.Context()), failure, "main thaw")

	s = newStage(t, func(dir string, cfg *Config) {
		asFile(dir, cfg)
		cfg.IgnoreFailures = true
	})
	s.add("main", "")
	s.check("freeze", s.hook.Freeze(t.Context()), "", "main freeze")
	s.check("thaw", s.hook.Thaw(t.Context()), "", "main thaw")
}

// These are the C agent's words; see also the tests side by side.
func TestProgramFails(t *testing.T) {
	const failed = "child process has failed to execute fsfreeze hook: "
	for _, test := range []struct{ script, err string }{
		{"echo no; exit 1", failed + "no\n"},
		{"exit 3", failed + "exit status 3"},
		{"kill -9 $$", "child process has terminated abnormally"},
	} {
		s := newStage(t, withProgram)
		s.add("main", test.script)
		s.add("hooks/a", "")
		s.check(test.script, s.hook.Freeze(t.Context()), test.err, "main freeze")
		s.check(test.script, s.hook.Thaw(t.Context()), test.err, "a thaw, main thaw")
	}
	s := newStage(t, withProgram)
	s.check("absent", s.hook.Freeze(t.Context()), failed+"failed to exec 'DIR/main': No such file or directory\n", "")
}

func TestFailure(t *testing.T) {
	const fail = `[ $1 = thaw ] || { echo no room; exit 1; }`
	s := newStage(t, withProgram)
	s.add("main", "")
	s.add("hooks/a", "")
	s.add("hooks/b", fail)
	s.add("hooks/c", "")
	s.check("freeze", s.hook.Freeze(t.Context()),
		"fsfreeze hook b: child process has failed to execute fsfreeze hook: no room\n",
		"main freeze, a freeze, b freeze, b thaw, a thaw, main thaw")

	// One that cannot even be started has nothing to take back.
	s.add("hooks/b", "")
	noInterpreter := []byte("#!/no/such/interpreter\n")
	if err := os.WriteFile(filepath.Join(s.dir, "hooks/b"), noInterpreter, 0o755); err != nil {
		t.Fatal(err)
	}
	s.check("freeze", s.hook.Freeze(t.Context()),
		"fsfreeze hook b: child process has failed to execute fsfreeze hook: failed to exec 'DIR/hooks/b': No such file or directory\n",
		"main freeze, a freeze, a thaw, main thaw")
}

func TestThawGoesOn(t *testing.T) {
	s := newStage(t, withProgram)
	s.add("main", "exit 1")
	s.add("hooks/a", "exit 2")
	s.add("hooks/b", "")
	s.add("hooks/c", "exit 3")
	s.check("thaw", s.hook.Thaw(t.Context()),
		"fsfreeze hook c: child process has failed to execute fsfreeze hook: exit status 3",
		"c thaw, b thaw, a thaw, main thaw")
}

func TestIgnoreFailures(t *testing.T) {
	s := newStage(t, func(dir string, cfg *Config) {
		withProgram(dir, cfg)
		cfg.IgnoreFailures = true
	})
	s.add("main", "")
	s.add("hooks/a", "echo never mind; exit 2")
	s.add("hooks/b", "")
	s.check("freeze", s.hook.Freeze(t.Context()), "", "main freeze, a freeze, b freeze")
	s.check("thaw", s.hook.Thaw(t.Context()), "", "b thaw, a thaw, main thaw")
	if !s.logged("never mind") {
		t.Errorf("the failure was not logged: %q", s.log)
	}
	// The program of option -F is another matter.
	s.add("main", "exit 1")
	s.check("freeze", s.hook.Freeze(t.Context()),
		"child process has failed to execute fsfreeze hook: exit status 1", "main freeze")
}

func TestHanging(t *testing.T) {
	const hang = `[ $1 = thaw ] || exec sleep 600`
	// On a busy machine even a hook that does nothing may need longer than a
	// small limit, and one that hangs may not have noted anything by then.
	limits := []time.Duration{300 * time.Millisecond, 3 * time.Second, 20 * time.Second}
	for _, test := range []struct {
		hooks          map[string]string
		err, wantNotes string
	}{
		{
			map[string]string{"main": "", "hooks/a": hang, "hooks/b": ""},
			"fsfreeze hook a: child process has failed to execute fsfreeze hook: DIR/hooks/a freeze did not end within ",
			"main freeze, a freeze, a thaw, main thaw",
		},
		// It was killed, so it had no chance to tidy up.
		{
			map[string]string{"main": hang},
			"child process has failed to execute fsfreeze hook: DIR/main freeze did not end within ",
			"main freeze, main thaw",
		},
	} {
		for i, limit := range limits {
			s := newStage(t, func(dir string, cfg *Config) {
				withProgram(dir, cfg)
				cfg.Limit = limit
			})
			for name, script := range test.hooks {
				s.add(name, script)
			}
			began := time.Now()
			err := s.hook.Freeze(t.Context())
			took, notes := time.Since(began), s.notes()
			if err == nil || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want that the time ran out", err)
				break
			}
			if took > limit+5*time.Minute {
				t.Errorf("took %v", took)
			}
			got, want := strings.ReplaceAll(err.Error(), s.dir, "DIR"), test.err+limit.String()
			if got == want && notes == test.wantNotes {
				break
			}
			if i == len(limits)-1 {
				t.Errorf("error %q, want %q; ran %q, want %q", got, want, notes, test.wantNotes)
			}
		}
	}
}

func TestBackgroundChild(t *testing.T) {
	s := newStage(t, nil)
	s.add("hooks/a", "echo still here; sleep 600 & echo $! >\"${NOTES%notes}pid\"")
	began := time.Now()
	s.check("freeze", s.hook.Freeze(t.Context()), "", "a freeze")
	if took := time.Since(began); took > 5*time.Minute {
		t.Errorf("took %v, the child's time", took)
	}
	data, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(data), &pid); err != nil {
		t.Fatal(err)
	}
	child, err := os.FindProcess(pid)
	if err == nil {
		err = child.Kill()
	}
	if err != nil {
		t.Errorf("the child did not outlive the hook: %v", err)
	}
	if !s.logged("still here") {
		t.Errorf("the output was not logged: %q", s.log)
	}
}

func TestHugeOutput(t *testing.T) {
	s := newStage(t, nil)
	s.add("hooks/a", "head -c 10000000 /dev/zero | tr '\\0' x; exit 1")
	err := s.hook.Freeze(t.Context())
	if err == nil || len(err.Error()) < 1<<10 || len(err.Error()) > 100<<10 {
		t.Fatalf("got an error of %d bytes", len(fmt.Sprint(err)))
	}
	for _, m := range s.log {
		if len(m) > 100<<10 {
			t.Errorf("a message has %d bytes", len(m))
		}
	}
}

// The client may be gone when it comes to the thaw, and its request with it.
func TestRequestGone(t *testing.T) {
	s := newStage(t, func(_ string, cfg *Config) { cfg.IgnoreFailures = true })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.add("hooks/a", "")
	s.add("hooks/b", "[ $1 = thaw ] || : >\"${NOTES%notes}begun\"; [ $1 = thaw ] || exec sleep 600")
	go func() {
		for {
			if _, err := os.Stat(filepath.Join(s.dir, "begun")); err == nil || ctx.Err() != nil {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	err := s.hook.Freeze(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the request was cancelled", err)
	}
	if notes := s.notes(); notes != "a freeze, b freeze, b thaw, a thaw" {
		t.Errorf("ran %q", notes)
	}
	s.check("thaw", s.hook.Thaw(ctx), "", "b thaw, a thaw")
}

func TestLimit(t *testing.T) {
	var r runtest.Recorder
	for limit, want := range map[time.Duration]time.Duration{0: run.DefaultLimit, time.Hour: time.Hour} {
		s := newStage(t, func(dir string, cfg *Config) {
			withProgram(dir, cfg)
			cfg.Run, cfg.Limit = r.Run, limit
		})
		s.check("freeze", s.hook.Freeze(t.Context()), "", "")
		if c := r.Take(); len(c) != 1 || c[0].Limit != want || len(c[0].Args) != 2 || c[0].Args[1] != "freeze" {
			t.Errorf("limit %v: ran %+v", limit, c)
		}
	}
}
