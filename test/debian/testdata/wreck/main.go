//go:build linux

// Command wreck makes a copy of what an agent reads of its system, and spoils
// it: "wreck HOW DIRECTORY". HOW is
//
//	missing     there is nothing
//	unreadable  files are there, and not for reading
//	waiting     files are pipes, that nobody writes to
//	truncated   the second half is cut off
//	mangled     some bytes are others
//	garbage     all of them are
package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// random is the same each time, for failures to come again.
var random = rand.New(rand.NewPCG(1, 2))

// copied is what agents read. All of /sys and /proc would take long.
var copied = []string{
	"/proc/self/mountinfo", "/proc/self/mounts", "/proc/self/net", "/proc/stat", "/proc/loadavg", "/proc/diskstats",
	"/sys/block", "/sys/class/block", "/sys/class/net", "/sys/class/rtc", "/sys/dev", "/sys/fs/btrfs",
	"/sys/devices/pci0000:00", "/sys/devices/system/cpu", "/sys/devices/system/memory",
	"/sys/devices/virtual/block", "/sys/devices/virtual/net",
	"/run/udev/data", "/run/utmp", "/run/systemd/sessions", "/run/systemd/users",
	"/usr/share/zoneinfo/Europe", "/usr/lib/os-release",
}

func main() {
	how, dir := os.Args[1], os.Args[2]
	if how == "missing" {
		return
	}
	for _, path := range copied {
		if err := wreck(how, path, dir); err != nil {
			fmt.Fprintln(os.Stderr, "wreck:", err)
			os.Exit(1)
		}
	}
	if err := os.Symlink("self/net", filepath.Join(dir, "proc/net")); err != nil {
		fmt.Fprintln(os.Stderr, "wreck:", err)
		os.Exit(1)
	}
}

func wreck(how, path, dir string) error {
	return filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // not on this system, or gone meanwhile
		}
		into := filepath.Join(dir, name)
		if e.IsDir() {
			return os.MkdirAll(into, 0o755)
		}
		if err := os.MkdirAll(filepath.Dir(into), 0o755); err != nil {
			return err
		}
		switch e.Type() {
		case fs.ModeSymlink:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(target, into)
		case 0:
			return spoil(how, name, into)
		}
		return nil
	})
}

// spoil writes what becomes of a file.
func spoil(how, name, into string) error {
	switch how {
	case "unreadable":
		return os.WriteFile(into, nil, 0)
	case "waiting":
		return syscall.Mkfifo(into, 0o644)
	case "truncated":
		data := contents(name)
		return os.WriteFile(into, data[:len(data)/2], 0o644)
	case "mangled":
		data := contents(name)
		for i := range data {
			if random.IntN(8) == 0 {
				data[i] = byte(' ' + random.IntN('~'-' '))
			}
		}
		return os.WriteFile(into, data, 0o644)
	case "garbage":
		data := make([]byte, random.IntN(4096))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		return os.WriteFile(into, data, 0o644)
	}
	return fmt.Errorf("what is %q?", how)
}

// contents returns what is in a file, as far as it is to be had: devices are
// not to be disturbed.
func contents(name string) []byte {
	base := filepath.Base(name)
	if strings.HasPrefix(base, "resource") || base == "config" || base == "rom" {
		return nil
	}
	data, _ := os.ReadFile(name)
	return data
}
