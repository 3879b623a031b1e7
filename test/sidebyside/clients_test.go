//go:build linux

package sidebyside

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A client is a program that is known to use agents.
type client struct {
	name string
	// dial begins to talk as the program does. What it returns sends a request
	// and returns what came back for it.
	dial func(t *testing.T, path string) (call func(request string) string)
	// requests are what the program sends, with %d for the process or the
	// handle that the agent told last.
	requests []string
}

// TestClients has both agents serve the clients, byte for byte in their way.
func TestClients(t *testing.T) {
	// What is found in place of chpasswd(8) keeps what it was told.
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "chpasswd"), []byte("#!/bin/sh\ncat >password\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	theirs, program := cAgent(t), ourAgent(t)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			want, got := c.talk(t, start(t, theirs)), c.talk(t, start(t, program))
			for i, request := range c.requests {
				if got[i] != want[i] {
					t.Errorf("%.200s\n got %.2000q\nwant %.2000q", request, got[i], want[i])
				}
			}
		})
	}
}

// talk makes the client's requests to an agent and returns what counts of the
// replies.
func (c *client) talk(t *testing.T, path string) []string {
	call := c.dial(t, path)
	var replies []string
	told := ""
	for _, request := range c.requests {
		request = strings.ReplaceAll(request, "%d", told)
		reply := call(request)
		for strings.Contains(reply, `"exited": false`) {
			time.Sleep(20 * time.Millisecond)
			reply = call(request)
		}
		if strings.Contains(request, `"guest-exec"`) || strings.Contains(request, `"guest-file-open"`) {
			told = digits.FindString(reply)
		}
		replies = append(replies, whatCounts(request, reply))
	}
	return replies
}

var (
	digits = regexp.MustCompile(`\d+`)
	// changing are the commands that return numbers of the moment.
	changing = regexp.MustCompile(`"guest-(exec|get-time|network-get-interfaces|get-fsinfo)"`)
	// unordered are the elements of lists that are in no order to rely on.
	unordered = regexp.MustCompile(`\{"(enabled|online)".*?\}`)
	// serial is known to the C agent from udev, which need not run here.
	serial = regexp.MustCompile(`"serial": ".*?", `)
)

// whatCounts returns a reply without what may differ from agent to agent.
func whatCounts(request, reply string) string {
	if elements := unordered.FindAllString(reply, -1); elements != nil {
		slices.Sort(elements)
		rest := unordered.ReplaceAllString(reply, "")
		return rest + strings.Join(elements, "\n")
	}
	if changing.MatchString(request) {
		reply = digits.ReplaceAllString(reply, "0")
	}
	return serial.ReplaceAllString(reply, "")
}

var clients = []client{
	{
		name: "Proxmox VE",
		dial: proxmox,
		requests: []string{
			`{"execute":"guest-ping","arguments":{}}`,
			`{"arguments":{},"execute":"guest-ping"}`, // its JSON has no order
			`{"execute":"guest-get-time","arguments":{}}`,
			`{"execute":"guest-info","arguments":{}}`,
			`{"execute":"guest-fsfreeze-status","arguments":{}}`,
			`{"execute":"guest-network-get-interfaces","arguments":{}}`,
			`{"execute":"guest-get-vcpus","arguments":{}}`,
			`{"execute":"guest-get-fsinfo","arguments":{}}`,
			`{"execute":"guest-get-memory-blocks","arguments":{}}`,
			`{"execute":"guest-get-memory-block-info","arguments":{}}`,
			`{"execute":"guest-get-host-name","arguments":{}}`,
			`{"execute":"guest-get-osinfo","arguments":{}}`,
			`{"execute":"guest-get-users","arguments":{}}`,
			`{"execute":"guest-get-timezone","arguments":{}}`,
			`{"execute":"guest-exec","arguments":{"capture-output":true,"path":"cat","arg":[],"input-data":"` + encode("to cat\n") + `"}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
			`{"execute":"guest-exec","arguments":{"capture-output":true,"path":"sh","arg":["-c","sleep 0.3; echo out; echo err >&2; exit 3"]}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
			`{"execute":"guest-exec","arguments":{"capture-output":true,"path":"no-such-program","arg":["x"]}}`,
			// It breaks base64 into lines.
			`{"execute":"guest-file-open","arguments":{"mode":"wb","path":"file"}}`,
			`{"execute":"guest-file-write","arguments":{"handle":%d,"buf-b64":"` + inLines(encode(small)) + `"}}`,
			`{"execute":"guest-file-close","arguments":{"handle":%d}}`,
			`{"execute":"guest-file-open","arguments":{"path":"file"}}`,
			`{"execute":"guest-file-read","arguments":{"count":1048576,"handle":%d}}`,
			`{"execute":"guest-file-close","arguments":{"handle":%d}}`,
			`{"execute":"guest-file-close","arguments":{"handle":%d}}`,
			`{"execute":"guest-file-open","arguments":{"path":"no-such-file"}}`,
			`{"execute":"guest-set-user-password","arguments":{"crypted":false,"username":"alice","password":"` + inLines(encode("secret")) + `"}}`,
			`{"execute":"guest-exec","arguments":{"capture-output":true,"path":"cat","arg":["password"]}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
		},
	},
	{
		name: "KubeVirt",
		dial: libvirt,
		requests: []string{
			`{"execute":"guest-ping"}`,
			`{"execute":"guest-get-time"}`,
			`{"execute":"guest-info"}`,
			`{"execute":"guest-get-fsinfo"}`,
			`{"execute":"guest-fsfreeze-status"}`,
			`{"execute":"guest-get-users"}`,
			`{"execute":"guest-get-osinfo"}`,
			`{"execute":"guest-get-timezone"}`,
			`{"execute":"guest-get-host-name"}`,
			`{"execute":"guest-network-get-interfaces"}`,
			`{"execute":"guest-ssh-get-authorized-keys","arguments":{"username":"no-such-user"}}`,
			`{"execute":"guest-ssh-add-authorized-keys","arguments":{"username":"no-such-user","keys":["ssh-rsa AAA a"],"reset":true}}`,
			`{"execute":"guest-set-user-password","arguments":{"username":"alice","password":"` + encode("secret") + `","crypted":false}}`,
			`{"execute":"guest-exec","arguments":{"path":"cat","arg":["password"],"capture-output":true}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
			// Before libvirt knew of keys, KubeVirt went by files.
			`{"execute":"guest-exec","arguments":{"path":"getent","arg":["passwd","root"],"capture-output":true}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
			`{"execute":"guest-file-open","arguments":{"path":"home/.ssh/authorized_keys","mode":"r"}}`,
			`{"execute":"guest-exec","arguments":{"path":"mkdir","arg":["-p","home/.ssh"],"capture-output":true}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
			`{"execute":"guest-exec","arguments":{"path":"chmod","arg":["700","home/.ssh"],"capture-output":true}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
			`{"execute":"guest-file-open","arguments":{"path":"home/.ssh/authorized_keys","mode":"w"}}`,
			`{"execute":"guest-file-write","arguments":{"handle":%d,"buf-b64":"` + encode("ssh-rsa AAA a\n") + `"}}`,
			`{"execute":"guest-file-close","arguments":{"handle":%d}}`,
			`{"execute":"guest-file-open","arguments":{"path":"home/.ssh/authorized_keys","mode":"r"}}`,
			`{"execute":"guest-file-read","arguments":{"handle":%d}}`,
			`{"execute":"guest-file-close","arguments":{"handle":%d}}`,
			`{"execute":"guest-exec","arguments":{"path":"stat","arg":["-c","%a","home/.ssh"],"capture-output":true}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
			`{"execute":"guest-exec","arguments":{"path":"stat","arg":["no-such-file"],"capture-output":true}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
		},
	},
	{
		name: "Ansible",
		dial: libvirt,
		requests: []string{
			`{"execute":"guest-info"}`,
			`{"execute":"guest-exec","arguments":{"path":"/bin/sh","capture-output":true,"arg":["-c","echo ~ && sleep 0"]}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
			`{"execute":"guest-file-open","arguments":{"path":"module.py","mode":"wb+"}}`,
			`{"execute":"guest-file-write","arguments":{"handle":%d,"buf-b64":"` + encode(large) + `"}}`,
			`{"execute":"guest-file-write","arguments":{"handle":%d,"buf-b64":"` + encode(small) + `"}}`,
			`{"execute":"guest-file-close","arguments":{"handle":%d}}`,
			`{"execute":"guest-file-open","arguments":{"path":"module.py","mode":"r"}}`,
			`{"execute":"guest-file-read","arguments":{"handle":%d,"count":65536}}`,
			`{"execute":"guest-file-read","arguments":{"handle":%d,"count":65536}}`,
			`{"execute":"guest-file-close","arguments":{"handle":%d}}`,
			`{"execute":"guest-exec","arguments":{"path":"/bin/sh","capture-output":true,"arg":["-c","rm module.py; exec no-such-program"]}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
		},
	},
	{
		name: "qemu-ga-client",
		dial: qemuGAClient,
		requests: []string{
			`{"execute": "guest-ping"}`,
			`{"execute": "guest-sync", "arguments": {"id": 4294967295}}`,
			`{"execute": "guest-info"}`,
			`{"execute": "guest-network-get-interfaces"}`,
			`{"execute": "guest-fsfreeze-status"}`,
			`{"execute": "guest-file-open", "arguments": {"path": "/etc/passwd"}}`,
			`{"execute": "guest-file-read", "arguments": {"handle": %d, "count": 1024}}`,
			`{"execute": "guest-file-read", "arguments": {"count": 1048576, "handle": %d}}`,
			`{"execute": "guest-file-close", "arguments": {"handle": %d}}`,
		},
	},
	{
		name: "by the manual",
		dial: delimited,
		requests: []string{
			`{"execute":"guest-ping"}`,
			`{"execute":"guest-get-host-name","id":1}`,
			`{"execute":"guest-file-open","arguments":{"path":"file","mode":"w+"}}`,
			`{"execute":"guest-file-write","arguments":{"handle":%d,"buf-b64":"` + encode(small) + `"}}`,
			`{"execute":"guest-file-seek","arguments":{"handle":%d,"offset":0,"whence":"set"}}`,
			`{"execute":"guest-file-read","arguments":{"handle":%d}}`,
			`{"execute":"guest-file-close","arguments":{"handle":%d}}`,
			`{"execute":"guest-exec","arguments":{"path":"env","env":["A=b"],"capture-output":true}}`,
			`{"execute":"guest-exec-status","arguments":{"pid":%d}}`,
		},
	},
}

var (
	small = strings.Repeat("what a file has in it\n", 100)
	large = strings.Repeat("0123456789abcde\n", 64<<10/16)
)

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// inLines breaks base64 as MIME does, in what is to be a JSON string.
func inLines(s string) string {
	var b strings.Builder
	for line := range slices.Chunk([]byte(s), 76) {
		b.Write(line)
		b.WriteString(`\n`)
	}
	return b.String()
}

// patience bounds every wait.
const patience = time.Minute

// A stream is a connection to an agent.
type stream struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func open(t *testing.T, path string) *stream {
	t.Helper()
	conn, err := net.Dial("unix", path)
	// The C agent has one place for those who wait.
	for end := time.Now().Add(patience); errors.Is(err, syscall.EAGAIN) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		conn, err = net.Dial("unix", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &stream{t, conn, bufio.NewReader(conn)}
}

func (s *stream) send(request string) {
	s.t.Helper()
	if _, err := s.conn.Write([]byte(request)); err != nil {
		s.t.Fatal(err)
	}
}

// receive returns what comes up to and including a byte.
func (s *stream) receive(end byte) string {
	s.t.Helper()
	text, err := s.r.ReadString(end)
	if err != nil {
		s.t.Fatalf("after %q: %v", text, err)
	}
	return text
}

// call sends a request as a line, and returns the line that answers it.
func (s *stream) call(request string) string {
	s.t.Helper()
	s.send(request + "\n")
	return s.receive('\n')
}

// close ends the connection, with nothing left in it.
func (s *stream) close() {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		s.t.Fatal(err)
	}
	if b, err := s.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Errorf("after all replies: %q, %v", b, err)
	}
	s.conn.Close()
}

// proxmox connects for each command, which goes out together with its sync.
func proxmox(t *testing.T, path string) func(string) string {
	id := 0
	return func(request string) string {
		s := open(t, path)
		defer s.close()
		id++
		s.send(fmt.Sprintf(`{"execute":"guest-sync-delimited","arguments":{"id":%d}}`, id) + "\n" + request + "\n")
		if got, want := s.receive('\n'), fmt.Sprintf("\xff{\"return\": %d}\n", id); got != want {
			t.Errorf("got %q for the sync, want %q", got, want)
		}
		return s.receive('\n')
	}
}

// libvirt keeps its connection and begins it with the time in milliseconds. It
// does not know of guest-sync-delimited. Whatever the user's JSON looked like,
// it sends its own form of it.
func libvirt(t *testing.T, path string) func(string) string {
	s := open(t, path)
	t.Cleanup(s.close)
	if reply := s.call(`{"execute":"guest-sync", "arguments":{"id":1700000000123}}`); reply != `{"return": 1700000000123}`+"\n" {
		t.Errorf("got %q for the sync", reply)
	}
	return s.call
}

// qemuGAClient is QEMU's own client, which does not end its requests.
func qemuGAClient(t *testing.T, path string) func(string) string {
	s := open(t, path)
	t.Cleanup(s.close)
	return func(request string) string {
		s.send(request)
		return s.receive('\n')
	}
}

// delimited does what QEMU's manual says to be safe from what somebody else has
// left behind: here, half a request.
func delimited(t *testing.T, path string) func(string) string {
	former := open(t, path)
	former.send(`{"execute":"guest-file-wri`)
	former.conn.Close()

	s := open(t, path)
	t.Cleanup(s.close)
	s.send("\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":1}}` + "\n")
	s.receive('\xff')
	if reply := s.receive('\n'); reply != `{"return": 1}`+"\n" {
		t.Errorf("got %q for the sync", reply)
	}
	return s.call
}
