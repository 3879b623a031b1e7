//go:build linux

package guest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
)

// testDeadServer has commands meet file systems whose server is there and does not
// answer. QEMU's agent does not either, from then on.
//
// One of them hides the way to a file system that is alive, so that whoever asks for
// its size waits, too. Another one is on a disk, as those of ntfs-3g are.
func testDeadServer(t *testing.T, g *guest) {
	shell(t, g, `set -e
	mkdir -p /tmp/dead/below /tmp/alive /tmp/dead-disk
	for i in 0 1 2; do
		dd if=/dev/zero of=/tmp/image$i bs=1M count=1
		mke2fs -F /tmp/image$i
		losetup /dev/loop$i /tmp/image$i
	done
	mount -t ext4 /dev/loop0 /tmp/dead/below
	mount -t ext4 /dev/loop1 /tmp/alive
	serve() {
		sh -c "mount -t $1 -o fd=3,rootmode=40000,user_id=0,group_id=0 $2 $3; exec sleep 1000000" 3<>/dev/fuse >/dev/null 2>&1 &
		echo $! >>/run/dead.pids
		until grep -q " $3 " /proc/self/mountinfo; do sleep 0.1; done
	}
	serve fuse dead /tmp/dead
	serve fuseblk /dev/loop2 /tmp/dead-disk`)
	revive := sync.OnceFunc(func() {
		shell(t, g, "kill $(cat /run/dead.pids); rm /run/dead.pids; umount -l /tmp/dead; umount -l /tmp/dead-disk")
	})
	defer shell(t, g, `umount /tmp/dead/below /tmp/alive
	for i in 0 1 2; do losetup -d /dev/loop$i; done
	rm -r /tmp/dead /tmp/dead-disk /tmp/alive /tmp/image[012]`)
	defer revive()

	t.Logf("this takes %v", stuck.DiskLimit)
	var together sync.WaitGroup
	port, line := connect(t, g.Socket()), connect(t, g.serial)
	together.Go(func() {
		for range 2 {
			askAboutDead(t, port)
		}
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
	together.Wait()

	// What was given up on is asked again once it has come back.
	revive()
	eventually(t, func() error {
		list := call(t, port, qga.GetFSInfo, qga.Empty{})
		if !slices.ContainsFunc(list, func(f qga.Filesystem) bool { return f.Mountpoint == "/tmp/dead/below" && f.TotalBytes != nil }) {
			return fmt.Errorf("after the dead server has gone: %+v", list)
		}
		return nil
	})
}

// askAboutDead has an agent tell what it can of all file systems and disks, within a
// time that is short for those who wait.
func askAboutDead(t *testing.T, agent *client.Client) {
	// Seconds are meant; the guest is slow.
	const limit = time.Minute
	timed := func(what string, fn func()) {
		begin := time.Now()
		fn()
		if took := time.Since(begin); took > limit {
			t.Errorf("%s took %v, want less than %v", what, took, limit)
		}
	}
	// Which of these file systems answer.
	alive := map[string]bool{"/tmp/alive": true, "/tmp/dead/below": false, "/tmp/dead-disk": false}

	timed("guest-get-fsinfo", func() {
		n := 0
		for _, f := range call(t, agent, qga.GetFSInfo, qga.Empty{}) {
			answers, ok := alive[f.Mountpoint]
			if !ok {
				continue
			}
			n++
			if (f.TotalBytes != nil) != answers {
				t.Errorf("guest-get-fsinfo: %s with a size is %t, want %t", f.Mountpoint, !answers, answers)
			}
		}
		if n != len(alive) {
			t.Errorf("guest-get-fsinfo lists %d of %d file systems", n, len(alive))
		}
	})
	timed("guest-get-disks", func() {
		list := call(t, agent, qga.GetDisks, qga.Empty{})
		for _, name := range []string{"/dev/loop0", "/dev/loop1", "/dev/loop2"} {
			if !slices.ContainsFunc(list, func(d qga.Disk) bool { return d.Name == name }) {
				t.Errorf("guest-get-disks does not list %s, but %+v", name, list)
			}
		}
	})
	timed("guest-fstrim", func() {
		n := 0
		for _, p := range call(t, agent, qga.FSTrim, qga.FSTrimArgs{}).Paths {
			answers, ok := alive[p.Path]
			if !ok {
				continue
			}
			n++
			const dead = "failed to open: system call does not return"
			switch {
			case answers && p.Error != nil:
				t.Errorf("guest-fstrim of %s: %s", p.Path, *p.Error)
			case !answers && (p.Error == nil || *p.Error != dead):
				t.Errorf("guest-fstrim of %s: got %+v, want %q", p.Path, p, dead)
			}
		}
		if n != len(alive) {
			t.Errorf("guest-fstrim lists %d of %d file systems", n, len(alive))
		}
	})
	timed("guest-ping", func() { call(t, agent, qga.Ping, qga.Empty{}) })
}
