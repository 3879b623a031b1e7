//go:build linux

package guest

import (
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/test/vm"
)

// TestManyProcessors checks in a guest with more processors than the agent has
// any use for that the Go runtime does not get to know of them, because it
// would set aside memory for each; and that the variable which says so to the
// runtime does not reach the programs that the agent starts.
func TestManyProcessors(t *testing.T) {
	g := &guest{Guest: vm.Start(t, vm.Config{
		Agents: []vm.Agent{{Program: vm.Build(t, "./cmd/qemu-ga"), Port: vm.AgentPort}},
		CPUs:   8,
	})}
	c := connect(t, g.Socket())
	both := qga.CaptureSeparated
	if r := run(t, c, qga.ExecArgs{Path: "nproc", CaptureOutput: &both}); string(r.OutData) != "8\n" {
		t.Errorf("programs have %q processors, want 8", r.OutData)
	}
	if r := run(t, c, qga.ExecArgs{Path: "env", CaptureOutput: &both}); strings.Contains(string(r.OutData), "GOMAXPROCS") {
		t.Errorf("programs have GOMAXPROCS in their environment: %q", r.OutData)
	}
	pid := agentPID(t, g)
	if got := shell(t, g, "tr '\\0' '\\n' </proc/%d/environ | grep GOMAXPROCS", pid); got != "GOMAXPROCS=1\n" {
		t.Errorf("the agent has %q, want GOMAXPROCS=1", got)
	}
	settles(t, g, 4608)
}
