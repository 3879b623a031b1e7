//go:build linux

package sidebyside

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/qga"
)

// firstReply sends the request and returns the line that answers it.
func firstReply(t *testing.T, path, request string) []byte {
	t.Helper()
	reply, _, _ := bytes.Cut(exchange(t, path, []byte(request+"\n")), []byte("\n"))
	return reply
}

// steadyReplies sends the request to the C agent, to ours and to the C agent
// again, until that says twice the same: what was asked about did not change
// meanwhile, and the replies can be compared.
func steadyReplies(t *testing.T, c, ours, request string) (theirs, our []byte) {
	t.Helper()
	for range 50 {
		theirs = firstReply(t, c, request)
		our = firstReply(t, ours, request)
		if bytes.Equal(firstReply(t, c, request), theirs) {
			return theirs, our
		}
	}
	t.Fatalf("%s: the C agent's reply changes all the time", request)
	return nil, nil
}

// returnOf decodes the return value of a reply, and nothing that the type does
// not have.
func returnOf[T any](t *testing.T, reply []byte) T {
	t.Helper()
	var r struct{ Return *T }
	d := json.NewDecoder(bytes.NewReader(reply))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || r.Return == nil {
		t.Fatalf("reply %q: %v", reply, err)
	}
	return *r.Return
}

func equalJSON(t *testing.T, what string, theirs, our any) {
	t.Helper()
	want, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(our)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// onFixtureSys gives the test a /sys of its own, empty, in a mount namespace
// that ends with it. The agents that it starts live there too.
func onFixtureSys(t *testing.T) {
	t.Helper()
	// Never unlocked: the thread ends with the goroutine of the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skipf("mount namespace: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", "/sys", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
}

// replaceFiles makes dir hold nothing but these files. A name that ends in a
// slash is a directory.
func replaceFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if files == nil {
		return
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, contents := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case name[len(name)-1] == '/':
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte(contents), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// filesIn returns the contents of these files.
func filesIn(t *testing.T, dir string, names map[string]string) map[string]string {
	t.Helper()
	contents := map[string]string{}
	for name := range names {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			contents[name] = string(data)
		}
	}
	return contents
}

func TestVCPUs(t *testing.T) {
	c, ours := startC(t), start(t, ourAgent(t))
	theirs, our := steadyReplies(t, c, ours, `{"execute":"guest-get-vcpus"}`)
	list := returnOf[[]qga.VCPU](t, theirs)
	slices.SortFunc(list, func(a, b qga.VCPU) int { return int(a.LogicalID - b.LogicalID) }) // ours are
	equalJSON(t, "guest-get-vcpus", list, returnOf[[]qga.VCPU](t, our))

	theirs, our = steadyReplies(t, c, ours, `{"execute":"guest-get-load"}`)
	if !bytes.Equal(our, theirs) {
		equalJSON(t, "guest-get-load", returnOf[qga.LoadAverage](t, theirs), returnOf[qga.LoadAverage](t, our))
	}
}

// TestCPUStats has the counters of ours between those that the C agent replies
// before and after, but for the two that are known to go back now and then.
func TestCPUStats(t *testing.T) {
	c, ours := startC(t), start(t, ourAgent(t))
	ask := func(path string) []map[string]any {
		return returnOf[[]map[string]any](t, firstReply(t, path, `{"execute":"guest-get-cpustats"}`))
	}
	before, got, after := ask(c), ask(ours), ask(c)
	if len(got) != len(before) {
		t.Fatalf("%d processors, want %d", len(got), len(before))
	}
	for i := range got {
		if want := slices.Sorted(maps.Keys(before[i])); !slices.Equal(slices.Sorted(maps.Keys(got[i])), want) {
			t.Errorf("got %v, want members %v", got[i], want)
		}
		for member, value := range got[i] {
			n, isNumber := value.(float64)
			switch {
			case !isNumber || member == "cpu":
				if value != before[i][member] {
					t.Errorf("%s: got %v, want %v", member, value, before[i][member])
				}
			case member != "idle" && member != "iowait" && (n < before[i][member].(float64) || n > after[i][member].(float64)):
				t.Errorf("%s: %v is not from %v to %v", member, n, before[i][member], after[i][member])
			}
		}
	}
}

// TestSetVCPUs sets processors that are files in a temporary file system. They
// have numbers that no real one has.
func TestSetVCPUs(t *testing.T) {
	onFixtureSys(t)
	c, ours := startC(t), start(t, ourAgent(t))
	const dir = "/sys/devices/system/cpu"
	vcpus := func(list string) string {
		return fmt.Sprintf(`{"execute":"guest-set-vcpus","arguments":{"vcpus":[%s]}}`, list)
	}
	files := map[string]string{
		"cpu70000/": "", "cpu70001/online": "1\n", "cpu70002/online": "0\n", "cpu70003/online": "", "cpu70004": "", "cpu70005/online": "2",
	}
	for _, tt := range []struct {
		request string
		files   map[string]string
	}{
		{`{"execute":"guest-get-vcpus"}`, nil},
		{`{"execute":"guest-get-vcpus"}`, map[string]string{"cpu70000/": "", "cpufreq/": ""}},
		{`{"execute":"guest-get-vcpus"}`, map[string]string{"cpu70000/online": "", "online": "1"}},
		{`{"execute":"guest-get-vcpus"}`, map[string]string{"cpu70000/online/": ""}},
		{`{"execute":"guest-get-vcpus"}`, map[string]string{"cpu70000": ""}},
		{vcpus(`{"logical-id":70000,"online":true}`), nil},
		{vcpus(`{"logical-id":70000,"online":true}`), files},
		{vcpus(`{"logical-id":70000,"online":false}`), files},
		{vcpus(`{"logical-id":70001,"online":false}`), files},
		{vcpus(`{"logical-id":70001,"online":true,"can-offline":false},{"logical-id":70002,"online":true}`), files},
		{vcpus(`{"logical-id":70001,"online":false},{"logical-id":70009,"online":true},{"logical-id":70002,"online":true}`), files},
		{vcpus(`{"logical-id":70001,"online":false},{"logical-id":70002,"online":true},{"logical-id":70001,"online":true}`), files},
		{vcpus(`{"logical-id":70003,"online":false}`), files},
		{vcpus(`{"logical-id":70004,"online":false}`), files},
		{vcpus(`{"logical-id":70005,"online":false}`), files},
		{vcpus(``), files},
	} {
		replaceFiles(t, dir, tt.files)
		want := firstReply(t, c, tt.request)
		then := filesIn(t, dir, tt.files)
		replaceFiles(t, dir, tt.files)
		if got := firstReply(t, ours, tt.request); !bytes.Equal(got, want) {
			t.Errorf("%s with %q:\n got %s\nwant %s", tt.request, tt.files, got, want)
		}
		if got := filesIn(t, dir, tt.files); !maps.Equal(got, then) {
			t.Errorf("%s: left %q, want %q", tt.request, got, then)
		}
	}

	replaceFiles(t, dir, files)
	if err := unix.Mount("", "/sys", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	request := vcpus(`{"logical-id":70001,"online":false}`)
	if want, got := firstReply(t, c, request), firstReply(t, ours, request); !bytes.Equal(got, want) {
		t.Errorf("read-only: got %s, want %s", got, want)
	}
}
