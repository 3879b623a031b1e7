//go:build linux

package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// qemu is the emulator, looked up in PATH.
const qemu = "qemu-system-x86_64"

// Program is an executable, on the host as a rule, that a guest is to have.
type Program struct {
	// Path is the executable. Without Lib it must be static.
	Path string
	// Lib, if not empty, is the directory of the shared libraries that the
	// executable needs, the loader among them.
	Lib string
	// InGuest tells that Path is in the guest's image already.
	InGuest bool
}

func (p Program) name() string { return filepath.Base(p.Path) }

// CAgent returns QEMU's own agent of a major version that is in the cache: 7,
// Debian 12's, or 11, the newest.
func CAgent(version int) Program {
	dir := "c-agent-" + strconv.Itoa(version)
	return Program{Path: cached(dir, "qemu-ga"), Lib: cached(dir, "lib")}
}

// CAgentCommand returns the path of a script that runs the same agent on the
// host, with the libraries that it was built for.
func CAgentCommand(version int) string {
	return cached("qemu-ga-c" + strconv.Itoa(version))
}

// LVM returns a program of the logical volume manager, "lvm" or "dmsetup". In
// a guest that is no image there is no udev for them to wait for.
func LVM(name string) Program {
	return Program{Path: cached("lvm", name), Lib: cached("lvm", "lib")}
}

// Check returns an error that says what guests need, and those with these
// images, and this machine lacks, nil if nothing.
func Check(images ...Image) error {
	var errs []error
	if _, err := exec.LookPath(qemu); err != nil {
		errs = append(errs, err)
	}
	for _, name := range []string{"kernel/vmlinuz", "kernel/modules", "busybox", "c-agent-11/qemu-ga"} {
		if _, err := os.Stat(cached(name)); err != nil {
			errs = append(errs, err)
		}
	}
	for _, image := range images {
		if err := image.check(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("no such guest here, please run make setup: %w", errors.Join(errs...))
	}
	return nil
}

// cached returns the path of something in the cache that test/setup.sh fills;
// the two must agree on where it is.
func cached(elem ...string) string {
	dir := os.Getenv("BELLHOP_CACHE")
	if dir == "" {
		dir = os.Getenv("XDG_CACHE_HOME")
		if dir == "" {
			dir = filepath.Join(os.Getenv("HOME"), ".cache")
		}
		dir = filepath.Join(dir, "bellhop")
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}
