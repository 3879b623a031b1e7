//go:build linux

package guest

import (
	"sync"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
)

// testDeadServer has commands meet a file system whose server is there and does not
// answer. QEMU's agent does not either, from then on.
func testDeadServer(t *testing.T, g *guest) {
	shell(t, g, `mkdir /tmp/dead
	sh -c 'mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 dead /tmp/dead; exec sleep 1000000' 3<>/dev/fuse >/dev/null 2>&1 &
	echo $! >/run/dead.pid
	until grep -q " /tmp/dead " /proc/self/mountinfo; do sleep 0.1; done`)
	defer shell(t, g, "kill $(cat /run/dead.pid); umount -l /tmp/dead; rmdir /tmp/dead")

	t.Logf("this takes %v", stuck.DiskLimit)
	var together sync.WaitGroup
	defer together.Wait()
	port, line := connect(t, g.Socket()), connect(t, g.serial)
	together.Go(func() {
		callFails(t, port, qga.FileOpen, qga.FileOpenArgs{Path: "/tmp/dead/file"},
			"failed to open file '/tmp/dead/file' (mode: 'r'): Connection timed out")
	})
	together.Go(func() {
		callFails(t, line, qga.Exec, qga.ExecArgs{Path: "/tmp/dead/program"},
			"Failed to execute child process \u201C/tmp/dead/program\u201D (Connection timed out)")
		// At once this time.
		callFails(t, line, qga.Exec, qga.ExecArgs{Path: "/tmp/dead/program"},
			"Failed to execute child process \u201C/tmp/dead/program\u201D (Connection timed out)")
		run(t, line, qga.ExecArgs{Path: "true"})
	})
}
