//go:build linux

package debian

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
)

// Types of records in utmp.
const (
	bootTime    = 2
	userProcess = 7
)

// utmpRecord is what utmp(5) has to say about somebody at a terminal.
func utmpRecord(kind uint16, name string, seconds uint32) []byte {
	record := make([]byte, 384)
	binary.LittleEndian.PutUint16(record, kind)
	copy(record[8:], "tty9")
	copy(record[44:], name)
	binary.LittleEndian.PutUint32(record[340:], seconds)
	binary.LittleEndian.PutUint32(record[344:], 250000)
	return record
}

// utmp has the guest keep a utmp file, which it does not by itself.
func (g *guest) utmp(t *testing.T, records ...[]byte) {
	t.Helper()
	t.Cleanup(func() { g.shell(t, "rm -f /run/utmp") })
	g.shell(t, "echo "+base64.StdEncoding.EncodeToString(bytes.Join(records, nil))+" | base64 -d >/run/utmp")
}

// login has somebody log in at a terminal as long as the test lasts.
func (g *guest) login(t *testing.T, user, tty string) {
	t.Helper()
	t.Cleanup(func() { g.shell(t, "systemctl stop login-"+tty+"; loginctl terminate-user "+user+"; true") })
	g.shell(t, fmt.Sprintf("systemd-run -q --unit=login-%[2]s -p StandardInput=tty -p StandardOutput=tty -p TTYPath=/dev/%[2]s "+
		"/sbin/agetty --autologin %[1]s --noclear %[2]s linux", user, tty))
	g.await(t, "loginctl list-sessions --no-legend | grep -c ' "+tty+" '; true", "1\n")
}

// testUsers has people log in where nothing writes utmp, as Debian 13 has it,
// and compares what is made of a utmp file.
func testUsers(t *testing.T, g *guest) {
	g.shell(t, "rm -f /run/utmp")
	g.login(t, "alice", "tty8")
	g.login(t, "bob", "tty9")
	g.login(t, "alice", "tty10")
	if r := g.c.ask(t, command("guest-get-users", "")); r.String() != "[]" {
		t.Errorf("without utmp the C agent answers %v", r)
	}
	want := map[string]float64{}
	for line := range strings.Lines(g.shell(t, `for s in $(loginctl list-sessions --no-legend | awk '{print $1}'); do
			[ "$(loginctl show-session -P Class $s)" = user ] || continue
			echo $(loginctl show-session -P Name $s) $(date -d "$(loginctl show-session -P Timestamp $s)" +%s)
		done`)) {
		var name string
		var since float64
		if _, err := fmt.Sscan(line, &name, &since); err != nil {
			t.Fatal(err)
		}
		if first, ok := want[name]; !ok || since < first {
			want[name] = since
		}
	}
	if len(want) != 2 {
		t.Fatalf("logind knows of %v, want two users", want)
	}
	reply := g.ours.ask(t, command("guest-get-users", ""))
	list, _ := reply.Return.([]any)
	if len(list) != len(want) {
		t.Errorf("got %v, want %v", reply, want)
	}
	for _, u := range list {
		u, _ := u.(map[string]any)
		name, _ := u["user"].(string)
		var since float64
		if _, err := fmt.Sscan(fmt.Sprint(u["login-time"]), &since); err != nil || math.Floor(since) != want[name] {
			t.Errorf("got %v, want %v", text(u), want[name])
		}
	}

	// Who has logged out is not listed.
	g.shell(t, "systemctl stop login-tty9")
	g.await(t, "loginctl list-sessions --no-legend | grep -c ' tty9 '; true", "0\n")
	if r := g.ours.ask(t, command("guest-get-users", "")).String(); strings.Contains(r, "bob") {
		t.Errorf("after bob has left: %s", r)
	}

	// A system that keeps a utmp file goes by that.
	g.utmp(t, utmpRecord(userProcess, "bob", 1700000000))
	if r := g.ours.ask(t, command("guest-get-users", "")).String(); !strings.Contains(r, "bob") {
		t.Errorf("with bob in utmp: %s", r)
	}
	g.compare(t, command("guest-get-users", ""))
}
