//go:build linux

package debian

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
)

// testUsers has people log in where nothing writes utmp, as Debian 13 has it,
// and compares what is made of a utmp file.
func testUsers(t *testing.T, g *guest) {
	login := func(user, tty string) {
		t.Helper()
		g.shell(t, fmt.Sprintf("systemd-run -q --unit=login-%[2]s -p StandardInput=tty -p StandardOutput=tty -p TTYPath=/dev/%[2]s "+
			"/sbin/agetty --autologin %[1]s --noclear %[2]s linux", user, tty))
		g.await(t, "loginctl list-sessions --no-legend | grep -c ' "+tty+" '; true", "1\n")
	}
	t.Cleanup(func() {
		g.shell(t, "systemctl stop 'login-*'; loginctl terminate-user alice bob; rm -f /run/utmp; true")
	})

	g.shell(t, "rm -f /run/utmp")
	login("alice", "tty8")
	login("bob", "tty9")
	login("alice", "tty10")
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
	record := make([]byte, 384)
	binary.LittleEndian.PutUint16(record, 7) // USER_PROCESS
	copy(record[8:], "tty9")
	copy(record[44:], "bob")
	binary.LittleEndian.PutUint32(record[340:], 1700000000)
	binary.LittleEndian.PutUint32(record[344:], 250000)
	g.shell(t, "echo "+base64.StdEncoding.EncodeToString(record)+" | base64 -d >/run/utmp")
	if r := g.ours.ask(t, command("guest-get-users", "")).String(); !strings.Contains(r, "bob") {
		t.Errorf("with bob in utmp: %s", r)
	}
	g.compare(t, command("guest-get-users", ""))
}
