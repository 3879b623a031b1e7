package accounts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/guest/run/runtest"
)

const passwd = `root:x:0:0:root:/root:/bin/bash
# a comment
alice:x:1000:1001:Alice,,,:/home/alice:/bin/sh
broken:x:one:1001::/home/broken:/bin/sh
huge:x:4294967296:0::/root:/bin/sh
short:x:1002
bare:x:1003:1003:::
trailing:x:1004:1004::/home/trailing//:
+nis:x:0:0::/root:/bin/sh
-nobody:x:0:0::/root:/bin/sh
+::::::
1234:x:1005:1005::/home/1234:/bin/sh
last:x:1006:1006::/home/last:/bin/zsh`

func TestParsePasswd(t *testing.T) {
	for _, test := range []struct {
		name string
		want user
	}{
		{"root", user{name: "root", uid: 0, gid: 0, home: "/root"}},
		{"alice", user{name: "alice", uid: 1000, gid: 1001, home: "/home/alice"}},
		{"bare", user{name: "bare", uid: 1003, gid: 1003, home: "/"}},
		{"trailing", user{name: "trailing", uid: 1004, gid: 1004, home: "/home/trailing"}},
		{"1234", user{name: "1234", uid: 1005, gid: 1005, home: "/home/1234"}},
		{"last", user{name: "last", uid: 1006, gid: 1006, home: "/home/last"}},
		{"", user{name: "root", uid: 0, gid: 0, home: "/root"}},
		{"broken", user{}},
		{"huge", user{}},
		{"short", user{}},
		{"+nis", user{}},
		{"-nobody", user{}},
		{"+", user{}},
		{"# a comment", user{}},
		{"ali", user{}},
		{"alice:x", user{}},
	} {
		got, ok := parsePasswd(passwd, test.name)
		if got != test.want || ok != (test.want != user{}) {
			t.Errorf("%q: got %+v, %v, want %+v", test.name, got, ok, test.want)
		}
	}
}

func FuzzParsePasswd(f *testing.F) {
	f.Add(passwd, "alice")
	f.Add("::::::", "")
	f.Fuzz(func(t *testing.T, text, name string) {
		u, ok := parsePasswd(text, name)
		if !ok {
			return
		}
		if name != "" && u.name != name {
			t.Errorf("asked for %q, got %q", name, u.name)
		}
		if !strings.HasPrefix(u.home, "/") || strings.Contains(u.home, "\n") {
			t.Errorf("%q is no home", u.home)
		}
	})
}

func newRoot(t *testing.T, passwd string) root.Dir {
	t.Helper()
	dir := t.TempDir()
	if passwd != "" {
		if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwd), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root.Dir(dir)
}

func TestLookup(t *testing.T) {
	getent := func(_ context.Context, c run.Command) ([]byte, error) {
		switch name := c.Args[len(c.Args)-1]; name {
		case "ldap":
			return []byte("ldap:*:70000:70001:From LDAP:/home/ad/ldap:/bin/bash\n"), nil
		case "LDAP@corp": // a name service may know a user by more names than one
			return []byte("ldap:*:70000:70001:From LDAP:/home/ad/ldap:/bin/bash\n"), nil
		case "garbage":
			return []byte("no such thing\n"), nil
		case "slow":
			return nil, context.DeadlineExceeded
		case "broken":
			return nil, &run.ExitError{Action: c.Action, Code: 1, Output: []byte("unknown database")}
		case "absent":
			return nil, &run.StartError{Action: c.Action, Program: "getent", Err: syscall.ENOENT}
		}
		return nil, &run.ExitError{Action: c.Action, Code: 2}
	}
	ldap := user{name: "ldap", uid: 70000, gid: 70001, home: "/home/ad/ldap"}
	for _, test := range []struct {
		name  string
		want  user
		err   string // what follows the name
		asked bool
	}{
		{"alice", user{name: "alice", uid: 1000, gid: 1001, home: "/home/alice", listed: true}, "", false},
		{"1234", user{name: "1234", uid: 1005, gid: 1005, home: "/home/1234", listed: true}, "", false},
		{"ldap", ldap, "", true},
		{"LDAP@corp", ldap, "", true},
		{"nobody-here", user{}, "Success", true},
		{"--help", user{}, "Success", true},
		{"absent", user{}, "Success", true},
		{"garbage", user{}, "Success", true},
		{"slow", user{}, "context deadline exceeded", true},
		{"broken", user{}, "child process has failed to look up user: unknown database", true},
		{"", user{}, "Success", false},
		{"0", user{}, "Success", false},
		{"-1", user{}, "Success", false},
		{" +7", user{}, "Success", false},
	} {
		recorder := &runtest.Recorder{Reply: getent}
		a := New(Config{Root: newRoot(t, passwd), Run: recorder.Run})
		got, err := a.lookup(t.Context(), test.name)
		wantErr := ""
		if test.err != "" {
			wantErr = fmt.Sprintf("failed to lookup user '%s': %s", test.name, test.err)
		}
		if got != test.want || text(err) != wantErr {
			t.Errorf("%q: got %+v, %v, want %+v, %s", test.name, got, err, test.want, wantErr)
		}
		commands := recorder.Take()
		if asked := len(commands) > 0; asked != test.asked {
			t.Errorf("%q: getent asked: %v", test.name, asked)
		}
		if test.asked {
			if got, want := strings.Join(commands[0].Args, " "), "getent passwd -- "+test.name; got != want {
				t.Errorf("%q: ran %q, want %q", test.name, got, want)
			}
		}
	}

	// Without /etc/passwd there may be users still.
	a := New(Config{Root: newRoot(t, ""), Run: getent})
	if got, err := a.lookup(t.Context(), "ldap"); got != ldap || err != nil {
		t.Errorf("no /etc/passwd: got %+v, %v", got, err)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
