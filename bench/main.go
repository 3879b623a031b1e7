//go:build linux

// Bench has QEMU's own agent and ours do the same work, and prints what it
// took, the ratio, and whether that is what this project aims at.
//
// The two take turns, each time in a fresh process, so that whatever else the
// machine does meets both. What is printed is the median of all rounds. Requests
// are made up beforehand and replies are only counted while the clock runs; that
// they are right is checked at another time. What is left of the client's own
// cost, and of the kernel's, shows in the column "floor": there a server gives
// the same replies that neither parses nor does anything.
//
// It is no test: an aim that is missed is told, and the exit status is zero.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"github.com/bellhop-vm/bellhop/test/vm"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) == 4 && os.Args[1] == floorCommand {
		return serveFloor(os.Args[2], os.Args[3])
	}

	var (
		ours     = flag.String("agent", "bin/qemu-ga", "our agent")
		major    = flag.Int("c", 11, "major version of the C agent, `7 or 11`")
		output   = flag.String("o", "table", "output `format`, table or json")
		pattern  = flag.String("run", "", "measure only what matches the `regexp`")
		rounds   = flag.Int("rounds", 5, "how often each is measured")
		quick    = flag.Bool("quick", false, "one round: less than a minute, but more noise")
		inGuest  = flag.Bool("vm", vm.Check() == nil, "measure over virtio-serial in a guest as well")
		withSink = flag.Bool("syslog", false, "give both a /dev/log that takes messages, in a mount namespace (as root)")
	)
	flag.Parse()
	only, err := regexp.Compile(*pattern)
	switch {
	case err != nil:
		return err
	case flag.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case *output != "table" && *output != "json":
		return fmt.Errorf("unknown output format %q", *output)
	case *rounds < 1:
		return errors.New("at least one round is needed")
	}
	if *quick {
		*rounds = 1
	}
	if *withSink && !inSinkNamespace() {
		return enterSinkNamespace()
	}
	// The client's threads block in the kernel, and the sink has to go on.
	runtime.GOMAXPROCS(max(4, runtime.NumCPU()))

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	dir, onTmpfs, err := workDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	diskDir, err := os.MkdirTemp("", "bellhop-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(diskDir)
	syslog := "absent: syslog(3) fails at once, in both"
	if inSinkNamespace() {
		if err := startSink(); err != nil {
			return err
		}
		syslog = "a socket that drops what it gets, in both"
	} else if _, err := os.Stat("/dev/log"); err == nil {
		syslog = "the one of this machine"
	}

	s := suite{ctx: ctx, dir: dir, diskDir: diskDir, only: only, rounds: *rounds, quick: *quick, contenders: contenders(*ours, *major)}
	if err := s.onHost(); err != nil {
		return err
	}
	if *inGuest {
		if err := s.inGuest(*ours, *major); err != nil {
			return err
		}
	}

	files := "files and state in " + dir + ", a tmpfs; " + diskDir + " where it says disk"
	if !onTmpfs {
		files = "files and state in " + dir + ", NO tmpfs: the disk is measured too"
	}
	r := report{
		Conditions: []string{
			fmt.Sprintf("C is QEMU's agent of major version %d, ours is %s", *major, *ours),
			fmt.Sprintf("%d CPUs, %d rounds (memory: %d), medians", runtime.NumCPU(), s.rounds, s.fewRounds()),
			"get-* and network-get-* over unix sockets: client and agent on one CPU",
			files,
			"/dev/log: " + syslog + "; C logs each ping, file open and close, and exec to it, ours all but the pings",
		},
		Results: s.results,
	}
	if *output == "json" {
		return r.writeJSON(os.Stdout)
	}
	return r.writeTable(os.Stdout)
}

// workDir makes a directory for everything, in memory if possible: it is not
// the disk that is to be measured.
func workDir() (dir string, onTmpfs bool, err error) {
	const shm, tmpfsMagic = "/dev/shm", 0x01021994
	var st syscall.Statfs_t
	if syscall.Statfs(shm, &st) == nil && st.Type == tmpfsMagic {
		if dir, err = os.MkdirTemp(shm, "bellhop-bench-"); err == nil {
			return dir, true, nil
		}
	}
	if dir, err = os.MkdirTemp("", "bellhop-bench-"); err != nil {
		return "", false, err
	}
	return dir, syscall.Statfs(dir, &st) == nil && st.Type == tmpfsMagic, nil
}

// progress tells on standard error what is going on.
func progress(what ...string) {
	fmt.Fprintln(os.Stderr, "bench:", strings.Join(what, ": "))
}
