//go:build linux

package sidebyside

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// temporary is the end of a temporary file's name.
var temporary = regexp.MustCompile(`authorized_keys\.[^\\"]+`)

// TestAccounts has both agents do the same to the keys and the password of a
// user that only they know, each in a home of its own. They must answer the
// same, and leave the same keys behind.
func TestAccounts(t *testing.T) {
	const uid, gid = 61234, 61235
	homes := map[string]string{}
	for _, agent := range []string{"c", "ours"} {
		dir := t.TempDir()
		for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		homes[agent] = filepath.Join(dir, "home")
		if err := os.Mkdir(homes[agent], 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(homes[agent], uid, gid); err != nil {
			t.Skip(err)
		}
	}
	full := t.TempDir()
	entry := func(agent string) string {
		return fmt.Sprintf("alice:x:%d:%d::%s:/bin/sh\nnohome:x:61236:61236::/no/such/home:/bin/sh\nfull:x:61237:61237::%s:/bin/sh\n",
			uid, gid, homes[agent], full)
	}

	// The only chpasswd that either finds is one that says what it was given.
	bin := t.TempDir()
	chpasswd := "#!/bin/sh\necho \"${0##*/} $*\"\n/bin/cat\nexit 1\n"
	if err := os.WriteFile(filepath.Join(bin, "chpasswd"), []byte(chpasswd), 0o755); err != nil {
		t.Fatal(err)
	}
	// Who is not in its file is looked for elsewhere by ours, in vain.
	if err := os.WriteFile(filepath.Join(bin, "getent"), []byte("#!/bin/sh\nexit 2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	with := func(agent, program string) string {
		passwd := filepath.Join(t.TempDir(), "passwd")
		if err := os.WriteFile(passwd, []byte("root:x:0:0::/root:/bin/sh\n"+entry(agent)), 0o644); err != nil {
			t.Fatal(err)
		}
		return start(t, apart(t, program, fmt.Sprintf("mount --bind %s /etc/passwd\n"+
			"mount -t tmpfs -o size=4k,uid=61237,gid=61237 full %[2]s\nmkdir %[2]s/.ssh\nchown 61237:61237 %[2]s/.ssh\nhead -c4096 /dev/zero >%[2]s/fill\n"+
			"PATH=%[3]s\nexport PATH", passwd, full, bin)))
	}
	c, ours := with("c", cAgent(t)), with("ours", ourAgent(t))

	keys := func(command, user, more string) string {
		return fmt.Sprintf(`{"execute":"guest-ssh-%s-authorized-keys","arguments":{"username":%q%s}}`, command, user, more)
	}
	password := func(user, password string, crypted bool) string {
		return fmt.Sprintf(`{"execute":"guest-set-user-password","arguments":{"username":%q,"password":%q,"crypted":%v}}`, user, password, crypted)
	}
	file := func(agent string) string { return filepath.Join(homes[agent], ".ssh/authorized_keys") }
	const mode = 0o600
	for _, step := range []struct {
		request string
		before  func(agent string) error
	}{
		{request: keys("get", "alice", "")},
		{request: keys("get", "no-such-user", "")},
		{request: keys("remove", "alice", `,"keys":["a"]`)},
		{request: keys("add", "nohome", `,"keys":["a"]`)},
		{request: keys("remove", "nohome", `,"keys":["a"]`)},
		{request: keys("add", "full", `,"keys":["a"]`)},
		{request: keys("add", "full", `,"keys":[],"reset":true`)},
		{request: keys("add", "full", `,"keys":["a"],"reset":true`)},
		{request: keys("add", "no-such-user", `,"keys":["a","#b"]`)},
		{request: keys("add", "alice", `,"keys":["a\nb"]`)},
		{request: keys("add", "alice", `,"keys":["ssh-rsa AAA a","ssh-rsa BBB b","ssh-rsa AAA a"]`)},
		{request: keys("add", "alice", `,"keys":["ssh-rsa BBB b","ssh-rsa CCC c"],"reset":false`)},
		{request: keys("remove", "alice", `,"keys":["ssh-rsa BBB b","ssh-rsa CCC"]`)},
		{request: keys("add", "alice", `,"keys":["ssh-rsa EEE e"]`), before: func(agent string) error {
			return os.WriteFile(file(agent), []byte("# mine\n  ssh-rsa DDD d \n\ncommand=\"a b\" ssh-rsa FFF f\r\n"), mode)
		}},
		{request: keys("remove", "alice", `,"keys":["ssh-rsa DDD d"]`)},
		{request: keys("add", "alice", `,"keys":["ssh-rsa GGG g"],"reset":true`)},
		{request: keys("add", "alice", `,"keys":[],"reset":true`)},
		{request: keys("get", "alice", ""), before: func(agent string) error {
			return os.Remove(file(agent))
		}},
		{request: keys("get", "alice", ""), before: func(agent string) error {
			return os.Mkdir(file(agent), 0o777)
		}},
		{request: keys("add", "alice", `,"keys":["ssh-rsa AAA a"],"reset":true`)},
		{request: keys("get", "alice", ""), before: func(agent string) error {
			secret := filepath.Join(filepath.Dir(homes[agent]), "secret")
			if err := os.WriteFile(secret, []byte("root's\n"), 0o600); err != nil {
				return err
			}
			return errors.Join(os.Remove(file(agent)), os.Symlink(secret, file(agent)))
		}},
		{request: keys("remove", "alice", `,"keys":["x"]`)},
		{request: keys("add", "alice", `,"keys":["ssh-rsa HHH h"]`)},
		{request: keys("add", "alice", `,"keys":["ssh-rsa HHH h"]`), before: func(agent string) error {
			ssh := filepath.Dir(file(agent))
			foreign := filepath.Join(filepath.Dir(homes[agent]), "foreign")
			return errors.Join(os.RemoveAll(ssh), os.Mkdir(foreign, 0o755), os.Symlink(foreign, ssh))
		}},
		{request: keys("add", "alice", `,"keys":["k"]`), before: func(agent string) error {
			ssh := filepath.Dir(file(agent))
			return errors.Join(os.Remove(ssh), os.WriteFile(ssh, nil, 0o644))
		}},
		{request: keys("remove", "alice", `,"keys":["k"]`)},
		{request: password("alice", "c2VjcmV0", false)},
		{request: password("alice", "JDYkeCR5", true)},
		{request: password("alice", "YTpi", false)},
		{request: password("alice", "YQpi", false)},
		{request: password("a:b", "YQ==", false)},
		{request: password("a\nb", "YQ==", false)},
		{request: password("", "", false)},
		{request: password("alice", "@@", false)},
	} {
		var replies, left [2]string
		for i, agent := range []string{"c", "ours"} {
			if step.before != nil {
				if err := step.before(agent); err != nil {
					t.Fatal(err)
				}
			}
			reply := string(withoutPosition(exchange(t, [2]string{c, ours}[i], []byte(step.request+"\n"))))
			reply = strings.ReplaceAll(reply, homes[agent], "HOME")
			replies[i] = temporary.ReplaceAllString(reply, "authorized_keys.X")
			left[i] = state(file(agent))
		}
		if replies[0] != replies[1] {
			t.Errorf("%s\n got %s\nwant %s", step.request, replies[1], replies[0])
		}
		if left[0] != left[1] {
			t.Errorf("%s: in the file\n got %q\nwant %q", step.request, left[1], left[0])
		}
	}
}

// state tells what became of an authorized_keys file: what it is, whose, and the
// lines in it. Blank ones do not count, nor does the end of the last: there the
// agents differ.
func state(name string) string {
	info, err := os.Lstat(name)
	if err != nil {
		return "absent"
	}
	stat := info.Sys().(*syscall.Stat_t)
	data, _ := os.ReadFile(name) // of a directory nothing
	var lines []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			lines = append(lines, line)
		}
	}
	return fmt.Sprintf("%v %d:%d %q", info.Mode(), stat.Uid, stat.Gid, lines)
}
