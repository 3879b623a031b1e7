package users

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/qga"
)

// A record is what utmp(5) has to say about a terminal.
type record struct {
	kind            uint16
	name            string
	seconds, micros uint64
}

func encode(l layout, records ...record) []byte {
	var file []byte
	order := binary.NativeEndian
	for _, r := range records {
		b := make([]byte, l.size)
		order.PutUint16(b, r.kind)
		copy(b[8:40], "pts/0")
		copy(b[nameAt:nameAt+nameSize], r.name)
		copy(b[76:332], "host.example.org")
		if l.wide {
			order.PutUint64(b[l.time:], r.seconds)
			order.PutUint64(b[l.time+8:], r.micros)
		} else {
			order.PutUint32(b[l.time:], uint32(r.seconds))
			order.PutUint32(b[l.time+4:], uint32(r.micros))
		}
		file = append(file, b...)
	}
	return file
}

func tree(t *testing.T, files map[string]string) Users {
	t.Helper()
	return Users{Root: guesttest.Tree(t, files)}
}

func get(t *testing.T, u Users) []qga.User {
	t.Helper()
	users, err := u.get(t.Context(), qga.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if users == nil {
		t.Error("nobody is null instead of an empty list")
	}
	return users
}

func user(name string, since float64) qga.User { return qga.User{User: name, LoginTime: since} }

// The C agent, version 11.1.3, answers the same to the first eight records.
func TestUtmp(t *testing.T) {
	long := strings.Repeat("a", nameSize)
	records := []record{
		{2, "reboot", 1500000000, 0},
		{userProcess, "root", 1700000000, 250000},
		{userProcess, "bob", 1700000100, 0},
		{userProcess, "root", 1700000300, 0},
		{userProcess, "bob", 1600000000, 500000},
		{userProcess, long, 1700000200, 123456},
		{8, "gone", 1700000000, 0},
		{6, "LOGIN", 1700000000, 0},
		{userProcess, "", 1700000000, 0},
		{userProcess, "late", 3000000000, 1},
		{userProcess, "broken", 1700000000, 1000000},
		{userProcess, "\x1b[2J", 1700000000, 0},
		{userProcess, "caf\xe9", 1700000000, 0},
		{userProcess | 0x100, "nobody", 1700000000, 0},
		{accounting + 1, "nobody", 1700000000, 0},
		{0, "nobody", 1700000000, 0},
	}
	want := []qga.User{
		user("root", 1700000000.25),
		user("bob", 1600000000.5),
		user(long, 1700000200.123456),
		user("late", 3000000000.000001),
	}
	for _, l := range []layout{narrow, wide} {
		data := string(encode(l, records...))
		u := tree(t, map[string]string{"run/utmp": data})
		if err := os.Mkdir(u.Root.Path("/var"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/run", u.Root.Path("/var/run")); err != nil {
			t.Fatal(err)
		}
		if got := get(t, u); !slices.Equal(got, want) {
			t.Errorf("records of %d bytes: got %v, want %v", l.size, got, want)
		}
	}
	usual := layoutOf(narrow.size * wide.size)
	cut := encode(usual, records...)
	cut = cut[:len(cut)-6*usual.size-1] // into the record of the one who is late
	if got := get(t, tree(t, map[string]string{"var/run/utmp": string(cut)})); !slices.Equal(got, want[:3]) {
		t.Errorf("cut off: got %v, want %v", got, want[:3])
	}
}

func TestLayout(t *testing.T) {
	usual := layoutOf(0)
	for size, want := range map[int]layout{
		384: narrow, 400: wide, 3 * 384: narrow, 7 * 400: wide,
		1: usual, 384 * 400: usual, 390: usual,
	} {
		if got := layoutOf(size); got != want {
			t.Errorf("%d bytes: got %v, want %v", size, got, want)
		}
	}
}

const session = `# This is private data. Do not parse.
UID=1000
USER=alice
ACTIVE=1
IS_DISPLAY=1
STATE=active
REMOTE=1
LEADER_FD_SAVED=1
TYPE=tty
ORIGINAL_TYPE=tty
CLASS=user
SCOPE=session-3.scope
FIFO=/run/systemd/sessions/3.ref
REMOTE_HOST=192.0.2.7
SERVICE=sshd
LEADER=812
AUDIT=3
REALTIME=1700000000250000
MONOTONIC=34721842
`

func TestSessions(t *testing.T) {
	with := func(replace ...string) string {
		return strings.NewReplacer(replace...).Replace(session)
	}
	u := tree(t, map[string]string{
		"run/systemd/sessions/3":           session,
		"run/systemd/sessions/3.ref":       session,
		"run/systemd/sessions/.#4Xyz":      with("alice", "half-written"),
		"run/systemd/sessions/12":          with("1700000000250000", "1600000000500000"),
		"run/systemd/sessions/2":           with("alice", "carol", "1700000000250000", "1650000000000000", "CLASS=user", "CLASS=user-early"),
		"run/systemd/sessions/c1":          with("alice", "gdm", "CLASS=user", "CLASS=greeter"),
		"run/systemd/sessions/5":           with("alice", "cron", "CLASS=user", "CLASS=background"),
		"run/systemd/sessions/6":           with("alice", "manager", "CLASS=user", "CLASS=manager"),
		"run/systemd/sessions/7":           with("alice", "gone", "STATE=active", "STATE=closing"),
		"run/systemd/sessions/8":           with("USER=alice\n", "", "UID=1000", "UID=1001", "REALTIME=1700000000250000\n", ""),
		"run/systemd/sessions/9":           with("USER=alice\n", "", "UID=1000", "UID=1002"),
		"run/systemd/sessions/15":          with("alice", "al\xffce"),
		"run/systemd/sessions/16":          strings.TrimSuffix(with("alice", "erin", "MONOTONIC=34721842\n", ""), "50000\n"),
		"run/systemd/sessions/17":          "->17",
		"run/systemd/sessions/18":          "->gone",
		"run/systemd/sessions/10":          with("USER=alice\n", "", "UID=1000", "UID=../users/1001"),
		"run/systemd/sessions/11":          with("alice", "timeless", "1700000000250000", "soon"),
		"run/systemd/sessions/13":          "\x00\xff===\nUSER",
		"run/systemd/sessions/14":          "",
		"run/systemd/sessions/dir/nothing": "",
		"run/systemd/users/1001":           "# This is private data. Do not parse.\nNAME=dave\nSTATE=active\nREALTIME=1680000000000001\n",
	})
	want := []qga.User{
		user("alice", 1600000000.5),
		user("carol", 1650000000),
		user("dave", 1680000000.000001),
	}
	if got := get(t, u); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}

	// A utmp file without records knows nothing, one with any knows better, even if it
	// knows of nobody.
	if err := os.MkdirAll(u.Root.Path("/var/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	usual := layoutOf(0)
	start := string(encode(usual, record{2, "reboot", 1500000000, 0}))
	for _, tt := range []struct {
		name, utmp string
		want       []qga.User
	}{
		{"empty", "", want},
		{"nothing but zeros", strings.Repeat("\x00", 4*usual.size), want},
		{"garbage", garbage, want},
		{"cut off", start[:usual.size-1], want},
		{"start of the system", start, nil},
		{"start of the system, and garbage", start + garbage, nil},
	} {
		if err := os.WriteFile(u.Root.Path("/var/run/utmp"), []byte(tt.utmp), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := get(t, u); !slices.Equal(got, tt.want) {
			t.Errorf("utmp with %s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// garbage has the type of a login at its beginning.
var garbage = strings.Repeat("\x07\x00\xff", 4096)

// TestUnknown is about systems where there is nobody, and where nobody can tell.
func TestUnknown(t *testing.T) {
	const utmp, s = "var/run/utmp", "run/systemd/sessions/"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // the reply, or the error
	}{
		{"nothing", nil, `[]`},
		{"empty utmp", map[string]string{utmp: ""}, `[]`},
		{"no sessions", map[string]string{s: ""}, `[]`},
		{"a session that has just ended", map[string]string{s + "1": "->gone"}, `[]`},
		{"nobody's session", map[string]string{s + "1": strings.Replace(session, "CLASS=user", "CLASS=greeter", 1)}, `[]`},
		{"unreadable utmp, no sessions", map[string]string{utmp + "/x": "", s: ""}, `open("/var/run/utmp"): Is a directory`},
		{"unreadable utmp, sessions", map[string]string{utmp + "/x": "", s + "1": session}, `[{"user":"alice","login-time":1700000000.25}]`},

		{"unreadable utmp", map[string]string{utmp + "/x": ""}, `open("/var/run/utmp"): Is a directory`},
		{"looping utmp", map[string]string{utmp: "->utmp"}, `open("/var/run/utmp"): Too many levels of symbolic links`},
		{"garbage in utmp", map[string]string{utmp: garbage}, `read("/var/run/utmp"): no records`},
		{"unreadable sessions", map[string]string{"run/systemd/sessions": ""}, `open("/run/systemd/sessions/"): Not a directory`},
		{"neither readable", map[string]string{utmp + "/x": "", "run/systemd/sessions": ""}, `open("/var/run/utmp"): Is a directory`},
		{"unreadable session", map[string]string{utmp: "", s + "1/": ""}, `read("/run/systemd/sessions/1"): Is a directory`},
		{"empty session", map[string]string{s + "1": ""}, `read("/run/systemd/sessions/1"): not a session`},
		{"session that is cut off", map[string]string{s + "1": session[:40]}, `read("/run/systemd/sessions/1"): not a session`},
		{"garbage in a session", map[string]string{s + "1": "\x00\xff===\nUSER\n"}, `read("/run/systemd/sessions/1"): not a session`},
	} {
		got, err := tree(t, tt.files).get(t.Context(), qga.Empty{})
		if got := guesttest.JSON(t, got, err); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func FuzzParseUtmp(f *testing.F) {
	f.Add(encode(narrow, record{userProcess, "root", 1700000000, 250000}))
	f.Add(encode(wide, record{userProcess, "root", 1700000000, 250000}))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, l := range []layout{narrow, wide} {
			logins, known := parseUtmp(data, l)
			if len(logins) > 0 && !known {
				t.Errorf("%d logins on no record", len(logins))
			}
			if len(logins) > len(data)/l.size {
				t.Errorf("%d logins in %d bytes", len(logins), len(data))
			}
			for _, l := range logins {
				if l.user == "" || len(l.user) > nameSize || !isName(l.user) || l.micros < 0 {
					t.Errorf("got %+v", l)
				}
			}
		}
	})
}

// A machine with many sessions is answered for in a moment: 16,384 of 4,096
// users.
func BenchmarkUtmp(b *testing.B) {
	l := layoutOf(0)
	var records []record
	for i := range 16384 {
		records = append(records, record{userProcess, "user" + string(rune('a'+i%16)) + string(rune('a'+i/16%16)) + string(rune('a'+i/256%16)), uint64(1700000000 + i), 0})
	}
	data := encode(l, records...)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		logins, _ := parseUtmp(data, l)
		if got := earliest(logins); len(got) != 4096 {
			b.Fatalf("%d users", len(got))
		}
	}
}
