package guesttest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
}

// TestCapture captures this machine, with answers that name much of what must
// not get out.
func TestCapture(t *testing.T) {
	need(t, "sh", "awk", "od", "readlink", "uname")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	answers := t.TempDir()
	for name, text := range map[string]string{
		"text": "of " + host + "\n" +
			"52:54:00:ab:cd:ef 00:00:00:00:00:00 52:54:00:ab:cd:ee 52:54:00:ab:cd:ef\n" +
			"6e0c7c38-5a0c-4f3c-9c60-4b1d3f0f7a11 = 6e0c7c38-5a0c-4f3c-9c60-4b1d3f0f7a11\n" +
			"fe80000000000000505400fffeabcdef 20010db8000000000000000000000001\n",
		"entry":  "a\n-- /etc/shadow --\nb\n",
		"binary": "\x00\xff no text\n",
		"open":   "no newline on " + host,
		"empty":  "",
	} {
		if err := os.WriteFile(filepath.Join(answers, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("sh", "capture.sh", answers).Output()
	if err != nil {
		t.Fatal(err)
	}
	files, got := parse(t, string(out))
	for name, want := range map[string]string{
		"entry":  "a\n-- /etc/shadow --\nb\n",
		"binary": "\x00\xff no text\n",
		"open":   "no newline on guest",
		"empty":  "",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	form := regexp.MustCompile(`^of guest
(02:00:00:00(?::..){2}) 00:00:00:00:00:00 (02:00:00:00(?::..){2}) (02:00:00:00(?::..){2})
(00000000-0000-4000-8000-0{8}[0-9a-f]{4}) = (00000000-0000-4000-8000-0{8}[0-9a-f]{4})
fe800000000000000{14}[0-9a-f]{2} 20010db8000000000000000000000001
$`)
	if m := form.FindStringSubmatch(got["text"]); m == nil || m[1] != m[3] || m[1] == m[2] || m[4] != m[5] {
		t.Errorf("got %q", got["text"])
	}
	if _, ok := files["/etc/shadow"]; ok {
		t.Error("the text of an answer became an entry")
	}
	if files["/proc/self/mountinfo"] == "" {
		t.Error("no mounts")
	}
	serials, err := filepath.Glob("/sys/class/block/*/serial")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range serials {
		if data, _ := os.ReadFile(name); len(strings.TrimSpace(string(data))) >= 6 && strings.Contains(string(out), strings.TrimSpace(string(data))) {
			t.Errorf("the serial number %q is there", data)
		}
	}
}

// A planted guest has people, servers and customers in everything that is captured.
var planted = map[string]string{
	"/etc/passwd":     "root:x:0:0::/root:/bin/sh\nalice-smith:x:1000:1000::/home/alice-smith:/bin/sh\nbobby:x:1001:1001::/srv/people/rjones:/bin/sh\n",
	"/etc/adjtime":    "0.0 0 0.0\n0\nLOCAL\n",
	"/proc/diskstats": "254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n",
	"/proc/self/mountinfo": `1 0 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
2 1 0:20 / /proc rw - proc proc rw
3 1 0:21 / /run rw shared:2 - tmpfs tmpfs rw,size=131724k,mode=755
4 1 0:30 / /mnt/customers rw - nfs4 nas7.corp.example:/export/customers/acme rw,vers=4.2,clientaddr=10.77.1.2,addr=10.77.1.1
5 4 254:2 / /mnt/customers/local rw - xfs /dev/vda2 rw
6 1 0:31 / /srv/share rw - cifs //files.corp.example/alice-smith rw,username=alice-smith,domain=CORP,addr=10.77.1.3
7 1 0:30 / /srv/again ro - nfs4 nas7.corp.example:/export/customers/acme ro,addr=10.77.1.1
8 1 0:32 / /home/alice-smith/remote rw - fuse.sshfs alice@build.corp.example:/home/alice rw,user_id=1000
9 1 0:33 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/srv/customers/acme,upperdir=/home/alice-smith/up
10 1 254:3 /customers/acme /opt/data rw - ext4 /dev/vda3 rw
11 1 0:34 /@alice /home/alice-smith rw - btrfs /dev/vda4 rw,space_cache=v2,subvolid=256,subvol=/@alice
12 1 0:34 /@jörg /home/CORP/j` + "\u00f6" + `rg\040m rw - btrfs /dev/vda4 rw,subvolid=257,subvol=/@jörg
13 1 254:5 / /srv/people/rjones/disk rw - ext4 /dev/vda5 rw
14 1 7:0 / /run/media/alice/ACME-1 ro - iso9660 /dev/loop0 ro
15 3 0:35 / /run/user/1000/gvfs rw - fuse.gvfsd-fuse gvfsd-alice rw
16 1 45:3 / /gpfs rw - gpfs corp.example rw,dev=corp
no such line with alice
17 1 0:36 / /srv rw - tmpfs acme rw
`,
	"/run/udev/data/b254:0":                 "S:disk/by-label/acme\nE:ID_SERIAL=ACME-SERIAL-0001\nE:ID_FS_LABEL=acme\n",
	"/sys/block/vda":                        "->../devices/virtio0/block/vda",
	"/sys/class/block/vda":                  "->../../devices/virtio0/block/vda",
	"/sys/devices/virtio0/block/vda/dev":    "254:0\n",
	"/sys/devices/virtio0/block/vda/serial": "ACME-SERIAL-0001",
	"/sys/devices/virtio0/block/vda/alias":  "alice\n", // nothing that is asked for
	"/answers/guest-get-host-name":          `{"host-name":"nas7-client.corp.example"}`,
	"/answers/guest-get-fsinfo": `[{"mountpoint":"/home/alice-smith","name":"vda4"},{"mountpoint":"/home/CORP/j\u00f6rg m"},` +
		`{"mountpoint":"/mnt/customers/local","disk":[{"serial":"ACME-SERIAL-0001"}]},{"mountpoint":"/srv/people/rjones/disk"},` +
		`{"mountpoint":"/run/media/alice/ACME-1"},{"mountpoint":"/opt/data"},{"mountpoint":"/mnt/customers2"},{"mountpoint":"/srv/people/rjones/new"}]`,
}

// concealed are the mounts of the planted guest in the result, and the answer about
// them.
const (
	concealed = `1 0 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
2 1 0:20 / /proc rw - proc proc rw
3 1 0:21 / /run rw shared:2 - tmpfs tmpfs rw
4 1 0:30 / /mnt/mount1 rw - nfs4 source1 rw
5 4 254:2 / /mnt/mount1/local rw - xfs /dev/vda2 rw
6 1 0:31 / /mnt/mount2 rw - cifs source2 rw
7 1 0:30 / /mnt/mount3 ro - nfs4 source1 ro
8 1 0:32 / /home/mount4 rw - fuse.sshfs source3 rw
9 1 0:33 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
10 1 254:3 /dir1 /opt/data rw - ext4 /dev/vda3 rw
11 1 0:34 /dir2 /home/mount5 rw - btrfs /dev/vda4 rw,space_cache=v2,subvolid=256,subvol=/dir2
12 1 0:34 /dir3 /home/mount6 rw - btrfs /dev/vda4 rw,subvolid=257,subvol=/dir3
13 1 254:5 / /home/mount7 rw - ext4 /dev/vda5 rw
14 1 7:0 / /run/media/mount8 ro - iso9660 /dev/loop0 ro
15 3 0:35 / /run/user/1000/gvfs rw - fuse.gvfsd-fuse source4 rw
16 1 45:3 / /mnt/mount9 rw - gpfs source5 rw
17 1 0:36 / /mnt/mount10 rw - tmpfs source6 rw
`
	concealedAnswer = `[{"mountpoint":"/home/mount5","name":"vda4"},{"mountpoint":"/home/other1"},` +
		`{"mountpoint":"/mnt/mount1/local","disk":[{"serial":"XXXXXXXXXXXXXXX1"}]},{"mountpoint":"/home/mount7"},` +
		`{"mountpoint":"/run/media/mount8"},{"mountpoint":"/opt/data"},{"mountpoint":"/mnt/customers2"},{"mountpoint":"/home/user2/new"}]`
)

// secrets are what would tell whose guest the planted one is.
var secrets = []string{
	"alice", "smith", "bobby", "rjones", "jörg", "u00f6", "corp", "nas7", "files", "build", "acme", "export",
	"10.77", "username", "addr", "lowerdir",
}

// TestCaptureConceals captures a guest of which little must get out.
func TestCaptureConceals(t *testing.T) {
	out := captureApart(t, "")
	files, answers := parse(t, out)
	tell(t, files, answers, secrets...)
	if got := files["/proc/self/mountinfo"]; got != concealed {
		t.Errorf("mountinfo: got\n%s\nwant\n%s", got, concealed)
	}
	if got := answers["guest-get-fsinfo"]; got != concealedAnswer {
		t.Errorf("fsinfo: got\n%s\nwant\n%s", got, concealedAnswer)
	}
	if got, want := files["/etc/adjtime"], planted["/etc/adjtime"]; got != want {
		t.Errorf("/etc/adjtime: got %q, want %q", got, want)
	}
	if got, want := files["/proc/diskstats"], planted["/proc/diskstats"]; got != want {
		t.Errorf("/proc/diskstats: got %q, want %q", got, want)
	}
}

// TestCaptureMounts captures mounts as the kernel lists them.
func TestCaptureMounts(t *testing.T) {
	out := captureApart(t, `
umount /proc
mount -t tmpfs tmpfs /home
mount -t tmpfs tmpfs /srv
mkdir -p /home/alice-smith/acme /srv/nas7
mount -t tmpfs nas7.corp.example:/export/customers/acme /srv/nas7
mount -t tmpfs //files.corp.example/alice-smith /home/alice-smith/acme
mount --bind /srv/nas7 /home/alice-smith
`)
	files, answers := parse(t, out)
	tell(t, files, answers, "alice", "smith", "corp", "nas7", "acme")
	for _, want := range []string{
		` / /srv [a-z,]+ - tmpfs tmpfs rw\n`,
		` / /mnt/mount\d+ [a-z,]+ - tmpfs source\d+ rw\n`,
		` / /home/mount\d+ [a-z,]+ - tmpfs source\d+ rw\n.* / /home/mount\d+ [a-z,]+ - tmpfs source\d+ rw\n`,
	} {
		if got := files["/proc/self/mountinfo"]; !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("got\n%swant in it %s", got, want)
		}
	}
}

// tell fails if a secret is in a result.
func tell(t *testing.T, files, answers map[string]string, secrets ...string) {
	t.Helper()
	for _, entries := range []map[string]string{files, answers} {
		for name, contents := range entries {
			for _, s := range secrets {
				if strings.Contains(strings.ToLower(name+"\n"+contents), s) {
					t.Errorf("%q is in %s", s, name)
				}
			}
		}
	}
}

// captureApart captures the planted guest after a script has run among its mounts.
func captureApart(t *testing.T, script string) string {
	t.Helper()
	need(t, "sh", "awk", "od", "readlink", "uname", "unshare", "mount", "umount", "mkdir")
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := Tree(t, planted)
	awk, err := exec.LookPath("awk")
	if err != nil {
		t.Fatal(err)
	}
	if awk, err = filepath.EvalSymlinks(awk); err != nil { // Debian has a link to it in /etc
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(awk, filepath.Join(bin, "awk")); err != nil {
		t.Fatal(err)
	}
	capture, err := os.ReadFile("capture.sh")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", "--mount", "--uts", "sh", "-e", "-c", `echo nas7-client >/proc/sys/kernel/hostname
for d in etc sys run proc; do mount --bind "$0/$d" "/$d"; done
`+script+`
PATH=$1:$PATH exec sh -s "$0/answers"`, string(dir), bin)
	c.Stdin = bytes.NewReader(capture)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	return string(out)
}
