package guesttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCapture captures this machine, with answers that name much of what must
// not get out.
func TestCapture(t *testing.T) {
	for _, program := range []string{"sh", "awk", "od", "readlink", "uname"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
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
		"open":   "no newline",
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
		"open":   "no newline",
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
