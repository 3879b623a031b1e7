//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// sinkVariable in the environment says that this process is the one that
// enterSinkNamespace started.
const sinkVariable = "BELLHOP_BENCH_SINK"

func inSinkNamespace() bool { return os.Getenv(sinkVariable) != "" }

// enterSinkNamespace does everything again in a mount namespace of its own.
func enterSinkNamespace() error {
	if os.Geteuid() != 0 {
		return errors.New("-syslog needs root, for a mount namespace")
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), sinkVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// startSink puts a /dev/log into this mount namespace, and drops what is sent
// to it.
//
// The rest of the machine sees the same /dev, so a new one, with what the
// agents and QEMU need, takes its place here.
func startSink() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	dev, err := os.MkdirTemp("", "bellhop-bench-dev-")
	if err != nil {
		return err
	}
	defer os.Remove(dev)
	if err := unix.Mount("tmpfs", dev, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a /dev: %w", err)
	}
	for _, name := range []string{"null", "zero", "random", "urandom", "shm"} {
		from, to := filepath.Join("/dev", name), filepath.Join(dev, name)
		st, err := os.Stat(from)
		if err != nil {
			continue // then nobody needs it
		}
		if st.IsDir() {
			err = os.Mkdir(to, 0o755)
		} else {
			err = os.WriteFile(to, nil, 0o600)
		}
		if err == nil {
			err = unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", to, err)
		}
	}
	if err := unix.Mount(dev, "/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	sink, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log", Net: "unixgram"})
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 64*kib)
		for {
			if _, err := sink.Read(buf); err != nil {
				return
			}
		}
	}()
	return nil
}
