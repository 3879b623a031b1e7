//go:build linux

// Package freeze tests what happens to file systems in a guest: that a copy of
// frozen ones is what a snapshot should be, and that none stays frozen, whatever
// goes wrong. Guest, disks and host are real, and so are the faults.
//
// The agent under test is ours, or QEMU's own with
//
//	go test ./test/freeze -run TestFaults -v -agent=c
//
// which shows that the C agent does what docs/operations.md says of it. It boots
// a guest for each fault, and takes a quarter of an hour.
package freeze

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
)

const configPath = "/etc/qemu/qemu-ga.conf"

// The agents that can be tested.
const (
	ours   = "ours"
	cAgent = "c"
)

var (
	agent  = flag.String("agent", ours, "the agent for TestFaults and TestCycles: ours or c")
	cycles = flag.Int("cycles", 0, "how often TestCycles freezes and thaws, if not as often as it has the time for")
)

// TestSnapshot takes what a host takes as a snapshot: copies of the disks, while
// they are frozen and something in the guest wants to write to them. It does so
// with either agent.
func TestSnapshot(t *testing.T) {
	t.Run("ours", func(t *testing.T) { testSnapshot(t, boot(t, ours, true)) })
	t.Run("C", func(t *testing.T) { testSnapshot(t, boot(t, cAgent, false)) })
}

func testSnapshot(t *testing.T, m *machine) {
	m.start(t, "")
	before := m.acked(t)

	if got := m.freeze(t); got != m.frozen {
		t.Fatalf("freeze: %s, want %s", got, m.frozen)
	}
	// These are to succeed, but not before thaw.
	m.shell(t, "for n in %s; do touch /data/$n/after & done >/dev/null 2>&1", list(names))
	acked := m.stalled(t)
	if got := m.status(t); got != "frozen" {
		t.Errorf("status: %s, want frozen", got)
	}
	for _, name := range []string{"guest-get-osinfo", "guest-exec", "guest-file-open", "guest-fsfreeze-freeze", "guest-fstrim"} {
		want := fmt.Sprintf("Command %s has been disabled: the command is not allowed", name)
		_, err := m.agent.CallRaw(t.Context(), name, nil)
		var failed *qga.Error
		if !errors.As(err, &failed) || failed.Class != qga.CommandNotFound || failed.Desc != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	enabled := m.enabled(t)
	if want := []string{
		"guest-fsfreeze-status", "guest-fsfreeze-thaw", "guest-info", "guest-ping", "guest-sync", "guest-sync-delimited",
	}; !slices.Equal(enabled, want) {
		t.Errorf("while frozen %v are enabled, want %v", enabled, want)
	}
	disks := m.copyDisks(t)
	m.stalled(t)
	if got := m.thaw(t); got != m.frozen {
		t.Errorf("thaw: %s, want %s", got, m.frozen)
	}
	m.progress(t)
	m.shell(t, "cd /data; for n in %s; do until [ -e $n/after ]; do sleep 0.1; done; rm $n/after; done", list(names))
	if got := m.status(t); got != "thawed" {
		t.Errorf("status: %s, want thawed", got)
	}

	checkFrozen(t, disks)
	t.Logf("before %v, acknowledged %v", before, acked)
	for name, n := range restore(t, disks) {
		// One record was on its way when the freeze came.
		if n != acked[name] && n != acked[name]+1 {
			t.Errorf("%s: the snapshot has %d records, %d were acknowledged", name, n, acked[name])
		}
	}
}

// Unless it is told how many, TestCycles makes so many cycles, on a slow machine fewer
// when time is up.
const (
	manyCycles = 1000
	fewCycles  = 200
	cycleTime  = 4 * time.Minute
)

// TestCycles freezes and thaws again and again while the writer writes.
func TestCycles(t *testing.T) {
	m := boot(t, *agent, *agent == ours)
	m.start(t, "")
	before := m.acked(t)
	begin := time.Now()
	var longest time.Duration
	n := *cycles
	if n == 0 {
		n = manyCycles
	}
	for i := range n {
		if *cycles == 0 && i >= fewCycles && time.Since(begin) > cycleTime {
			t.Logf("time is up after %d cycles", i)
			break
		}
		began := time.Now()
		freeze, thaw := m.freeze(t), m.thaw(t)
		if freeze != m.frozen || thaw != m.frozen {
			t.Fatalf("cycle %d: freeze and thaw got %s and %s, want %s", i+1, freeze, thaw, m.frozen)
		}
		longest = max(longest, time.Since(began))
		if (i+1)%100 == 0 || i+1 == n {
			t.Logf("%d cycles, %v each, %v at most", i+1,
				(time.Since(begin) / time.Duration(i+1)).Round(time.Millisecond), longest.Round(time.Millisecond))
		}
	}
	m.progress(t)
	t.Logf("written from %v to %v", before, m.acked(t))
	if pids := m.shell(t, "grep -al ^qemu-ga-freeze-guard /proc/[0-9]*/cmdline; true"); strings.Count(pids, "\n") > 1 {
		t.Errorf("guards have remained:\n%s", pids)
	}
	m.powerFails(t)
}
