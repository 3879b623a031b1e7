package accounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/qga"
)

// Nobody on the machine that runs the tests has these numbers.
const (
	aliceUID = 61234
	aliceGID = 61235
)

// A home is a root directory with a user in it.
type home struct {
	*Accounts
	t    *testing.T
	root root.Dir
}

// newHome needs root, as whose deputy the agent does all this.
func newHome(t *testing.T) home {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := newRoot(t, fmt.Sprintf("alice:x:%d:%d::/home/alice:/bin/sh\nnohome:x:61236:61236::/no/such/home:/bin/sh\nwild:x:4294967295:4294967295::/home/alice:/bin/sh\n", aliceUID, aliceGID))
	// The testing package keeps its directories to itself.
	for d := string(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := home{New(Config{Root: dir, Run: func(_ context.Context, c run.Command) ([]byte, error) {
		return nil, &run.ExitError{Action: c.Action, Code: 2}
	}}), t, dir}
	h.mkdir("/home", 0o755, 0)
	h.mkdir("/home/alice", 0o700, aliceUID)
	return h
}

func (h home) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h home) mkdir(name string, mode os.FileMode, uid int) {
	h.t.Helper()
	h.must(os.Mkdir(h.root.Path(name), mode))
	h.must(os.Lchown(h.root.Path(name), uid, uid))
	h.must(os.Chmod(h.root.Path(name), mode))
}

func (h home) write(name, text string, uid int) {
	h.t.Helper()
	h.must(os.WriteFile(h.root.Path(name), []byte(text), 0o600))
	h.must(os.Chown(h.root.Path(name), uid, uid))
}

func (h home) read(name string) string {
	h.t.Helper()
	data, err := os.ReadFile(h.root.Path(name))
	h.must(err)
	return string(data)
}

// is checks what name is: its mode and its owner.
func (h home) is(name string, mode os.FileMode, uid, gid uint32) {
	h.t.Helper()
	info, err := os.Lstat(h.root.Path(name))
	h.must(err)
	stat := info.Sys().(*syscall.Stat_t)
	if info.Mode() != mode || stat.Uid != uid || stat.Gid != gid {
		h.t.Errorf("%s is %v of %d:%d, want %v of %d:%d", name, info.Mode(), stat.Uid, stat.Gid, mode, uid, gid)
	}
}

// names returns what is in a directory.
func (h home) names(name string) []string {
	h.t.Helper()
	names, err := h.root.ReadDir(name)
	h.must(err)
	return names
}

func (h home) add(user string, keys ...string) error {
	_, err := h.sshAdd(h.t.Context(), qga.SSHAddAuthorizedKeysArgs{Username: user, Keys: keys})
	return err
}

func (h home) reset(user string, keys ...string) error {
	_, err := h.sshAdd(h.t.Context(), qga.SSHAddAuthorizedKeysArgs{Username: user, Keys: keys, Reset: new(true)})
	return err
}

func (h home) remove(user string, keys ...string) error {
	_, err := h.sshRemove(h.t.Context(), qga.SSHRemoveAuthorizedKeysArgs{Username: user, Keys: keys})
	return err
}

func (h home) get(user string) ([]string, error) {
	r, err := h.sshGet(h.t.Context(), qga.SSHGetAuthorizedKeysArgs{Username: user})
	return r.Keys, err
}

func (h home) holds(want ...string) {
	h.t.Helper()
	got, err := h.get("alice")
	if err != nil || !slices.Equal(got, want) {
		h.t.Errorf("get: %q, %v, want %q", got, err, want)
	}
}

func (h home) fails(err error, want string) {
	h.t.Helper()
	if text(err) != want {
		h.t.Errorf("got  %v\nwant %s", err, want)
	}
}

const (
	sshDir  = "/home/alice/.ssh"
	sshFile = "/home/alice/.ssh/authorized_keys"
)

// The replies are those of the C agent to the same requests, version 11.1.3.
func TestKeys(t *testing.T) {
	h := newHome(t)
	_, err := h.get("no-such-user")
	h.fails(err, "failed to lookup user 'no-such-user': Success")
	_, err = h.get("")
	h.fails(err, "failed to lookup user '': Success")
	_, err = h.get("alice")
	h.fails(err, "failed to read '/home/alice/.ssh/authorized_keys': Failed to open file \u201C/home/alice/.ssh/authorized_keys\u201D: No such file or directory")
	h.fails(h.remove("alice", "ssh-rsa AAA a"), "")
	h.fails(h.add("no-such-user", "ssh-rsa AAA a"), "failed to lookup user 'no-such-user': Success")
	h.fails(h.add("alice", "ssh-rsa AAA\na"), "invalid OpenSSH public key: 'ssh-rsa AAA\na'")
	h.fails(h.add("no-such-user", "#x"), "invalid OpenSSH public key: '#x'")
	h.fails(h.remove("no-such-user", "#x"), "invalid OpenSSH public key: '#x'")
	h.fails(h.add("nohome", "ssh-rsa AAA a"), "failed to create directory '/no/such/home/.ssh': No such file or directory")
	h.fails(h.remove("nohome", "ssh-rsa AAA a"), "")
	if names := h.names("/home/alice"); len(names) != 0 {
		t.Errorf("there is something in the home: %q", names)
	}

	h.fails(h.add("alice", "ssh-rsa AAA a", "ssh-rsa BBB b"), "")
	h.is(sshDir, os.ModeDir|0o700, aliceUID, aliceGID)
	h.is(sshFile, 0o600, aliceUID, aliceGID)
	h.fails(h.add("alice", "ssh-rsa AAA a", "ssh-rsa CCC c", "ssh-rsa CCC c"), "")
	h.holds("ssh-rsa CCC c", "ssh-rsa BBB b", "ssh-rsa AAA a")

	const own = "# mine\nssh-rsa AAA a\n\n  ssh-rsa DDD d  \ncommand=\"x # y\",no-pty ssh-ed25519 EEE e f\n"
	h.write(sshFile, own, aliceUID)
	h.must(os.Chmod(h.root.Path(sshFile), 0o666))
	h.holds(`command="x # y",no-pty ssh-ed25519 EEE e f`, "ssh-rsa DDD d", "ssh-rsa AAA a")
	h.fails(h.add("alice", "ssh-rsa FFF f", "ssh-rsa DDD d"), "")
	if got, want := h.read(sshFile), own+"ssh-rsa FFF f\nssh-rsa DDD d\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	h.is(sshFile, 0o600, aliceUID, aliceGID)
	h.fails(h.remove("alice", "ssh-rsa AAA a", "ssh-rsa ZZZ z", "ssh-rsa DDD d", "ssh-rsa FFF f"), "")
	if got, want := h.read(sshFile), strings.Replace(own, "ssh-rsa AAA a\n", "", 1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	before := h.read(sshFile)
	h.fails(h.add("alice", ""), "")
	h.fails(h.add("alice"), "")
	if got := h.read(sshFile); got != before {
		t.Errorf("adding nothing: got %q, want %q", got, before)
	}
	h.fails(h.reset("alice", "ssh-rsa NEW n"), "")
	h.holds("ssh-rsa NEW n")
	h.fails(h.reset("alice"), "")
	h.holds()
	if got := h.read(sshFile); got != "" {
		t.Errorf("reset to nothing: got %q", got)
	}
	if names := h.names(sshDir); !slices.Equal(names, []string{"authorized_keys"}) {
		t.Errorf("something is left in the directory: %q", names)
	}
}

// A directory of the user's that exists keeps its mode.
func TestDirectoryKeepsMode(t *testing.T) {
	h := newHome(t)
	h.mkdir(sshDir, os.ModeSetgid|0o750, aliceUID)
	h.fails(h.add("alice", "ssh-rsa AAA a"), "")
	h.is(sshDir, os.ModeDir|os.ModeSetgid|0o750, aliceUID, aliceUID)
	h.is(sshFile, 0o600, aliceUID, aliceGID) // and not the directory's group
}

// A home that gives its group to what is made in it does so to neither the
// directory nor the file.
func TestGroupOfHome(t *testing.T) {
	h := newHome(t)
	h.must(os.Chmod(h.root.Path("/home/alice"), os.ModeSetgid|0o770)) // its group is not alice's
	h.fails(h.add("alice", "ssh-rsa AAA a"), "")
	h.is(sshDir, os.ModeDir|os.ModeSetgid|0o700, aliceUID, aliceGID)
	h.is(sshFile, 0o600, aliceUID, aliceGID)
}

// Homes may be links, and so may what is in them, as long as the user gets
// there.
func TestLinks(t *testing.T) {
	t.Run("home", func(t *testing.T) {
		h := newHome(t)
		h.must(os.Rename(h.root.Path("/home"), h.root.Path("/data")))
		h.must(os.Symlink("data", h.root.Path("/home")))
		h.fails(h.add("alice", "ssh-rsa AAA a"), "")
		h.holds("ssh-rsa AAA a")
		h.is("/data/alice/.ssh/authorized_keys", 0o600, aliceUID, aliceGID)
	})
	t.Run("home itself", func(t *testing.T) {
		h := newHome(t)
		h.mkdir("/srv", 0o755, 0)
		h.must(os.Rename(h.root.Path("/home/alice"), h.root.Path("/srv/alice")))
		h.must(os.Symlink("../srv/alice", h.root.Path("/home/alice")))
		h.fails(h.add("alice", "ssh-rsa AAA a"), "")
		h.holds("ssh-rsa AAA a")
		h.is("/home/alice", os.ModeSymlink|0o777, 0, 0)
		h.is("/srv/alice/.ssh", os.ModeDir|0o700, aliceUID, aliceGID)
		h.is("/srv/alice/.ssh/authorized_keys", 0o600, aliceUID, aliceGID)
		h.fails(h.remove("alice", "ssh-rsa AAA a"), "")
		h.holds()
	})
	t.Run("own directory", func(t *testing.T) {
		h := newHome(t)
		h.mkdir("/home/alice/dotfiles", 0o755, aliceUID)
		h.must(os.Symlink("dotfiles", h.root.Path(sshDir)))
		h.fails(h.add("alice", "ssh-rsa AAA a"), "")
		h.is("/home/alice/dotfiles/authorized_keys", 0o600, aliceUID, aliceGID)
	})
	t.Run("own file", func(t *testing.T) {
		h := newHome(t)
		h.mkdir(sshDir, 0o700, aliceUID)
		h.write("/home/alice/keys", "ssh-rsa AAA a\n", aliceUID)
		h.must(os.Symlink("../keys", h.root.Path(sshFile)))
		h.holds("ssh-rsa AAA a")
		h.fails(h.add("alice", "ssh-rsa BBB b"), "")
		h.holds("ssh-rsa BBB b", "ssh-rsa AAA a")
		h.is(sshFile, 0o600, aliceUID, aliceGID) // no link any more
		if got := h.read("/home/alice/keys"); got != "ssh-rsa AAA a\n" {
			t.Errorf("what the link led to has changed: %q", got)
		}
	})

	// From here on the links lead where the user must not go.
	t.Run("foreign directory", func(t *testing.T) {
		h := newHome(t)
		h.mkdir("/etc/keys", 0o755, 0)
		h.must(os.Symlink("../../etc/keys", h.root.Path(sshDir)))
		err := h.add("alice", "ssh-rsa AAA a")
		got := regexp.MustCompile(`authorized_keys\.[^\x{201D}]+`).ReplaceAllString(text(err), "authorized_keys.X")
		if want := "failed to write to '" + sshFile + "': Failed to create file \u201C" + sshFile + ".X\u201D: Permission denied"; got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		h.must(os.Chmod(h.root.Path("/etc/keys"), 0o700))
		h.write("/etc/keys/authorized_keys", "root's\n", 0)
		denied := "failed to read '" + sshFile + "': Failed to open file \u201C" + sshFile + "\u201D: Permission denied"
		_, err = h.get("alice")
		h.fails(err, denied)
		h.fails(h.remove("alice", "root's"), denied)
		if names := h.names("/etc/keys"); !slices.Equal(names, []string{"authorized_keys"}) {
			t.Errorf("left there: %q", names)
		}
		h.is("/etc/keys/authorized_keys", 0o600, 0, 0)
	})
	t.Run("foreign file", func(t *testing.T) {
		h := newHome(t)
		h.mkdir(sshDir, 0o700, aliceUID)
		h.write("/etc/secret", "root's\n", 0)
		h.must(os.Symlink("../../../etc/secret", h.root.Path(sshFile)))
		_, err := h.get("alice")
		h.fails(err, "failed to read '"+sshFile+"': Failed to open file \u201C"+sshFile+"\u201D: Permission denied")
		h.fails(h.add("alice", "ssh-rsa AAA a"), "")
		h.is(sshFile, 0o600, aliceUID, aliceGID)
		h.is("/etc/secret", 0o600, 0, 0)
		if got := h.read("/etc/secret"); got != "root's\n" {
			t.Errorf("the secret has become %q", got)
		}
	})
	t.Run("foreign group", func(t *testing.T) { // the agent's groups are not the user's
		h := newHome(t)
		before, err := syscall.Getgroups()
		h.must(err)
		h.must(syscall.Setgroups([]int{0}))
		defer syscall.Setgroups(before)
		h.mkdir(sshDir, 0o700, aliceUID)
		h.write("/etc/secret", "wheel's\n", 0)
		h.must(os.Chmod(h.root.Path("/etc/secret"), 0o040))
		h.must(os.Symlink("../../../etc/secret", h.root.Path(sshFile)))
		_, err = h.get("alice")
		h.fails(err, "failed to read '"+sshFile+"': Failed to open file \u201C"+sshFile+"\u201D: Permission denied")
	})
	// Links of /proc go where their names do not say, for who has the capability.
	t.Run("foreign process", func(t *testing.T) {
		private := filepath.Join(t.TempDir(), "private")
		secret := filepath.Join(private, "secret")
		if err := errors.Join(os.Mkdir(private, 0o700), os.Mkdir(secret, 0), os.Chmod(secret, 0o777)); err != nil {
			t.Fatal(err)
		}
		other := exec.Command("sleep", "1000")
		other.Dir = secret
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		defer other.Wait()
		defer other.Process.Kill()
		process := fmt.Sprintf("/proc/%d", other.Process.Pid)
		h := newHome(t)
		h.must(os.Symlink(process+"/cwd", h.root.Path(sshDir)))
		if err := h.add("alice", "ssh-rsa AAA a"); err == nil {
			t.Error("keys were written where the user cannot go")
		}
		if left, _ := os.ReadDir(secret); len(left) != 0 {
			t.Errorf("left there: %v", left)
		}

		for _, file := range []string{process + "/maps", "/proc/kallsyms"} {
			h := newHome(t)
			h.mkdir(sshDir, 0o700, aliceUID)
			h.must(os.Symlink(file, h.root.Path(sshFile)))
			if err := h.add("alice", "ssh-rsa AAA a"); err != nil {
				continue
			}
			got := h.read(sshFile)
			if strings.Contains(got, "/sleep") || strings.Contains(got, "ffffffff8") {
				t.Errorf("%s can be read: %.200q", file, got)
			}
		}
	})
	t.Run("own group", func(t *testing.T) {
		h := newHome(t)
		const sshkeys = 61240
		h.write("/etc/group", "root:x:0:\nother:x:61241:bob\nsshkeys:x:61240:bob,alice\n", 0)
		h.mkdir(sshDir, 0o755, aliceUID)
		h.write(sshFile, "ssh-rsa AAA a\n", 0)
		h.must(os.Chown(h.root.Path(sshFile), 0, sshkeys))
		h.must(os.Chmod(h.root.Path(sshFile), 0o640))
		h.fails(h.add("alice", "ssh-rsa BBB b"), "")
		h.holds("ssh-rsa BBB b", "ssh-rsa AAA a")

		h.must(os.Remove(h.root.Path("/etc/group")))
		h.mkdir("/etc/group", 0o755, 0)
		h.fails(h.add("alice", "ssh-rsa CCC c"), "failed to look up the groups of user 'alice': Is a directory")
		h.must(os.Remove(h.root.Path("/etc/group")))
		h.holds("ssh-rsa BBB b", "ssh-rsa AAA a")
	})
	t.Run("group of a directory server", func(t *testing.T) {
		h := newHome(t)
		const ldapkeys = 61242
		h.must(os.Remove(h.root.Path("/etc/passwd")))
		groups, groupsErr := []byte("alice                 61243 61242\n"), error(nil)
		h.Accounts = New(Config{Root: h.root, Run: func(_ context.Context, c run.Command) ([]byte, error) {
			if c.Args[1] == "passwd" {
				return fmt.Appendf(nil, "alice:x:%d:%d::/home/alice:/bin/sh\n", aliceUID, aliceGID), nil
			}
			return groups, groupsErr
		}})
		h.mkdir(sshDir, 0o755, aliceUID)
		h.write(sshFile, "ssh-rsa AAA a\n", 0)
		h.must(os.Chown(h.root.Path(sshFile), 0, ldapkeys))
		h.must(os.Chmod(h.root.Path(sshFile), 0o640))

		// With the server gone, her keys must not be.
		groupsErr = context.DeadlineExceeded
		h.fails(h.add("alice", "ssh-rsa BBB b"), "failed to look up the groups of user 'alice': context deadline exceeded")
		h.is(sshFile, 0o640, 0, ldapkeys)
		groupsErr = nil
		h.holds("ssh-rsa AAA a")
		h.fails(h.add("alice", "ssh-rsa BBB b"), "")
		h.holds("ssh-rsa BBB b", "ssh-rsa AAA a")
		h.is(sshFile, 0o600, aliceUID, aliceGID)
	})
	t.Run("hard link", func(t *testing.T) {
		h := newHome(t)
		h.mkdir(sshDir, 0o700, aliceUID)
		h.write("/etc/config", "root's\n", 0)
		h.must(os.Chmod(h.root.Path("/etc/config"), 0o644))
		h.must(os.Link(h.root.Path("/etc/config"), h.root.Path(sshFile)))
		h.fails(h.add("alice", "ssh-rsa AAA a"), "")
		h.is("/etc/config", 0o644, 0, 0)
		if got := h.read("/etc/config"); got != "root's\n" {
			t.Errorf("the other name's file has become %q", got)
		}
		h.is(sshFile, 0o600, aliceUID, aliceGID)
	})
	t.Run("loop", func(t *testing.T) {
		h := newHome(t)
		h.mkdir(sshDir, 0o700, aliceUID)
		h.must(os.Symlink("authorized_keys", h.root.Path(sshFile)))
		_, err := h.get("alice")
		h.fails(err, "failed to read '"+sshFile+"': Failed to open file \u201C"+sshFile+"\u201D: Too many levels of symbolic links")
		h.fails(h.add("alice", "ssh-rsa AAA a"), "")
		h.holds("ssh-rsa AAA a")
	})
}

// Root gets into his home as anybody does, and is stopped by no mode.
func TestRoot(t *testing.T) {
	h := newHome(t)
	h.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0)
	const file = "/root/.ssh/authorized_keys"
	h.mkdir("/root", 0o700, 0)
	holds := func(want ...string) {
		t.Helper()
		if got, err := h.get("root"); err != nil || !slices.Equal(got, want) {
			t.Errorf("get: %q, %v, want %q", got, err, want)
		}
	}
	_, err := h.get("root")
	h.fails(err, "failed to read '"+file+"': Failed to open file \u201C"+file+"\u201D: No such file or directory")
	h.fails(h.remove("root", "ssh-rsa AAA a"), "")
	if names := h.names("/root"); len(names) != 0 {
		t.Errorf("there is something in the home: %q", names)
	}
	h.fails(h.add("root", "ssh-rsa AAA a", "ssh-rsa BBB b"), "")
	holds("ssh-rsa BBB b", "ssh-rsa AAA a")
	h.is("/root/.ssh", os.ModeDir|0o700, 0, 0)
	h.is(file, 0o600, 0, 0)

	// What is another's and forbids everything is not lost either.
	h.must(os.Chmod(h.root.Path(file), 0))
	h.must(os.Chown(h.root.Path(file), aliceUID, aliceGID))
	h.must(os.Chmod(h.root.Path("/root/.ssh"), 0))
	h.must(os.Chown(h.root.Path("/root/.ssh"), aliceUID, aliceGID))
	h.fails(h.add("root", "ssh-rsa CCC c"), "")
	h.fails(h.remove("root", "ssh-rsa AAA a"), "")
	holds("ssh-rsa CCC c", "ssh-rsa BBB b")
	h.is("/root/.ssh", os.ModeDir, aliceUID, aliceGID)
	h.is(file, 0o600, 0, 0)
	h.fails(h.reset("root", "ssh-rsa DDD d"), "")
	holds("ssh-rsa DDD d")

	// He may have put it anywhere.
	h.must(os.RemoveAll(h.root.Path("/root/.ssh")))
	h.mkdir("/elsewhere", 0o700, aliceUID)
	h.must(os.Symlink("../elsewhere", h.root.Path("/root/.ssh")))
	h.fails(h.add("root", "ssh-rsa EEE e"), "")
	h.is("/elsewhere/authorized_keys", 0o600, 0, 0)
	holds("ssh-rsa EEE e")
}

// TestRights looks at the rights of a visitor's thread.
func TestRights(t *testing.T) {
	h := newHome(t)
	h.write("/etc/group", "keys:x:61240:alice,root\nroot:x:61241:root\n", 0)
	own := thread(t)
	for _, test := range []struct {
		user user
		want map[string]string
	}{
		{user{name: "root", home: "/root", listed: true}, map[string]string{
			"Uid": "0 0 0 0", "Gid": "0 0 0 0", "Groups": "0 61240 61241", "CapEff": own["CapEff"], "CapPrm": own["CapPrm"],
		}},
		{user{name: "alice", uid: aliceUID, gid: aliceGID, home: "/home/alice", listed: true}, map[string]string{
			"Uid": fmt.Sprint("0 0 0 ", aliceUID), "Gid": fmt.Sprint("0 0 0 ", aliceGID), "Groups": fmt.Sprint(aliceGID, " 61240"),
			"CapEff": "00000000000000c0", "CapPrm": own["CapPrm"], // CAP_SETGID and CAP_SETUID
		}},
	} {
		var got map[string]string
		h.must(h.visit(t.Context(), test.user, func() error { got = thread(t); return nil }))
		for name, want := range test.want {
			if got[name] != want {
				t.Errorf("%s: %s is %q, want %q", test.user.name, name, got[name], want)
			}
		}
	}
	for range 20 { // on whatever thread
		if now := thread(t); now["Groups"] != own["Groups"] || now["CapEff"] != own["CapEff"] {
			t.Errorf("afterwards: got %v, want %v", now, own)
		}
	}
}

// thread returns what the kernel says of the thread.
func thread(t *testing.T) map[string]string {
	data, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Error(err)
	}
	status := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.Join(strings.Fields(value), " ")
	}
	return status
}

// What is no file must neither hold us up nor be lost.
func TestOddFiles(t *testing.T) {
	for name, test := range map[string]struct {
		make func(path string) error
		mode os.FileMode
		err  string
	}{
		"fifo": {
			func(path string) error { return syscall.Mkfifo(path, 0o666) },
			os.ModeNamedPipe, "Error reading file \u201C" + sshFile + "\u201D: not a regular file",
		},
		"directory": {
			func(path string) error { return os.Mkdir(path, 0o777) },
			os.ModeDir, "Error reading file \u201C" + sshFile + "\u201D: Is a directory",
		},
		"large": {
			func(path string) error {
				return os.WriteFile(path, make([]byte, maxKeyFile+1), 0o600)
			},
			0, "Error reading file \u201C" + sshFile + "\u201D: file too large",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			h.mkdir(sshDir, 0o700, aliceUID)
			h.must(test.make(h.root.Path(sshFile)))
			h.must(os.Chown(h.root.Path(sshFile), aliceUID, aliceUID))
			done := make(chan struct{})
			go func() {
				defer close(done)
				want := "failed to read '" + sshFile + "': " + test.err
				_, err := h.get("alice")
				h.fails(err, want)
				h.fails(h.add("alice", "ssh-rsa AAA a"), want)
				h.fails(h.remove("alice", "ssh-rsa AAA a"), want)
			}()
			select {
			case <-done:
			case <-time.After(2 * time.Minute):
				t.Fatal("it hangs")
			}
			info, err := os.Lstat(h.root.Path(sshFile))
			h.must(err)
			if info.Mode().Type() != test.mode {
				t.Errorf("it has become %v", info.Mode())
			}
		})
	}
	t.Run("ssh is a file", func(t *testing.T) {
		h := newHome(t)
		h.write(sshDir, "", aliceUID)
		h.fails(h.add("alice", "k"), "failed to create directory '"+sshDir+"': File exists")
		h.fails(h.remove("alice", "k"), "")
	})
	t.Run("home is root's", func(t *testing.T) {
		h := newHome(t)
		h.must(os.Chown(h.root.Path("/home/alice"), 0, 0))
		h.must(os.Chmod(h.root.Path("/home/alice"), 0o755))
		h.fails(h.add("alice", "k"), "failed to create directory '"+sshDir+"': Permission denied")
	})
}

// An ID that the kernel takes for none must not leave us root.
func TestNoSuchID(t *testing.T) {
	h := newHome(t)
	if err := h.add("wild", "k"); !strings.Contains(text(err), "for user 'wild'") {
		t.Errorf("got %v", err)
	}
	if names := h.names("/home/alice"); len(names) != 0 {
		t.Errorf("there is something in the home: %q", names)
	}
}

func TestConcurrentAdds(t *testing.T) {
	h := newHome(t)
	var group sync.WaitGroup
	const clients = 32
	for i := range clients {
		group.Go(func() {
			if err := h.add("alice", fmt.Sprintf("ssh-rsa %d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if keys, err := h.get("alice"); err != nil || len(keys) != clients {
		t.Errorf("%d keys, %v, want %d", len(keys), err, clients)
	}
}

// The rights that were given up must not stay given up: no thread may live on
// with the user's.
func TestThreads(t *testing.T) {
	h := newHome(t)
	h.must(h.add("alice", "ssh-rsa AAA a"))
	for range 20 {
		h.holds("ssh-rsa AAA a")
	}
	var threads []string
	for range 3000 { // one that ends may take a moment
		if threads = threadsOf(t, aliceUID); len(threads) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("threads %v have the user's rights", threads)
}

// threadsOf returns the threads with the rights of uid in the file system, but
// for the main one: it cannot end before the others, so the runtime parks it for
// good.
func threadsOf(t *testing.T, uid int) (threads []string) {
	t.Helper()
	status, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range status {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		task := filepath.Base(filepath.Dir(name))
		if strings.Contains(string(data), fmt.Sprintf("\t%d\n", uid)) && task != fmt.Sprint(os.Getpid()) {
			threads = append(threads, task)
		}
	}
	return threads
}

// Somebody else in a home that does not answer must not make others wait for
// ever.
func TestVisitEnds(t *testing.T) {
	h := newHome(t)
	release := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	u := user{name: "alice", uid: aliceUID, gid: aliceGID, home: "/home/alice", listed: true}
	if err := h.visit(ctx, u, func() error { <-release; return nil }); text(err) != "the home directory of user 'alice': context deadline exceeded" {
		t.Errorf("the one who is stuck: got %v", err)
	}
	if err := h.visit(ctx, u, func() error { return nil }); text(err) != "the home directory of user 'alice': context deadline exceeded" {
		t.Errorf("the next one: got %v", err)
	}
	close(release)
	if err := h.visit(t.Context(), u, func() error { return nil }); err != nil {
		t.Errorf("afterwards: got %v", err)
	}
}

// The real getent knows what we expect of it.
func TestGetent(t *testing.T) {
	a := New(Config{Root: newRoot(t, ""), Run: run.Run})
	if _, err := exec.LookPath("getent"); err != nil {
		t.Skip(err)
	}
	if u, err := a.lookup(t.Context(), "root"); err != nil || u.uid != 0 || u.home == "" {
		t.Errorf("root: got %+v, %v", u, err)
	}
	if _, found, err := a.initgroups(t.Context(), "root"); !found || err != nil {
		t.Errorf("the groups of root: found: %v, %v", found, err)
	}
	for _, name := range []string{"no-such-user", "--help", "-i", "a:b", "a\nroot"} {
		_, err := a.lookup(t.Context(), name)
		if want := "failed to lookup user '" + name + "': Success"; text(err) != want {
			t.Errorf("%q: got %v, want %s", name, err, want)
		}
	}
}

func TestBecomeWithoutPrivilege(t *testing.T) {
	failed := make(chan error)
	go func() {
		// Privileges are the thread's, and it ends with the goroutine.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			failed <- err
			return
		}
		failed <- user{name: "alice", uid: 61234, gid: 61235}.become(nil)
	}()
	const want = "failed to set group for user 'alice': Operation not permitted"
	if err := <-failed; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
