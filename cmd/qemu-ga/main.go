//go:build linux

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Qemu-ga is the QEMU guest agent: it runs in a virtual machine and lets the
// host look after it. It takes the place of the C agent of the same name.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/channel"
	"github.com/bellhop-vm/bellhop/internal/config"
	"github.com/bellhop-vm/bellhop/internal/daemonize"
	"github.com/bellhop-vm/bellhop/internal/guest/freeze"
	"github.com/bellhop-vm/bellhop/internal/guest/hooks"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/pidfile"
	"github.com/bellhop-vm/bellhop/internal/resident"
	"github.com/bellhop-vm/bellhop/internal/state"
	"github.com/bellhop-vm/bellhop/internal/systemd"
	"github.com/bellhop-vm/bellhop/internal/threads"
	"github.com/bellhop-vm/bellhop/qga"
)

// version is this project's version; the linker sets it. What -V and
// guest-info report is the protocol's, which clients compare with.
var version = "devel"

func main() {
	freeze.BeGuard()
	boundProcessors()
	threads.CalmMonitor()
	os.Exit(launch())
}

// launch is main with an exit status.
func launch() int {
	// Little of the heap is garbage, and nobody waits for the collector.
	debug.SetGCPercent(25)

	child := daemonize.Child()
	manager := systemd.FromEnvironment()
	fd, family, activationErr := manager.Listener()

	cfg, action, err := config.Load(config.Source{
		Args: os.Args, LookupEnv: os.LookupEnv, Activated: string(family),
	})
	if err != nil {
		return config.Report(err, os.Args[0], os.Stdout, os.Stderr)
	}
	switch action {
	case config.ShowVersion:
		fmt.Print(config.Version(qga.ProtocolVersion))
		return 0
	case config.ShowHelp:
		fmt.Print(config.Usage(os.Args[0], qga.ProtocolVersion+" (bellhop "+version+")"))
		return 0
	case config.ListCommands:
		for _, c := range agent.New(nil, nil, commands(cfg, nil, nil, nil)...).Commands() {
			fmt.Println(c.Name)
		}
		return 0
	}
	if activationErr != nil {
		return config.Report(activationErr, os.Args[0], os.Stdout, os.Stderr)
	}
	if action == config.DumpConf {
		os.Stdout.Write(cfg.Dump())
		return 0
	}

	if cfg.Daemon && child == nil {
		status, err := daemonize.Parent()
		if err != nil {
			return config.Report(err, os.Args[0], os.Stdout, os.Stderr)
		}
		return status
	}
	if err := manager.Keep(); err != nil {
		return config.Report(err, os.Args[0], os.Stdout, os.Stderr)
	}

	log := logging.New(target(cfg), logging.Syslog(), cfg.Verbose)
	defer log.Close()
	if err := serve(cfg, log, manager, child, fd); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			log.Criticalf("%s", line)
		}
		return 1
	}
	return 0
}

// serve is the agent's life, from its preparations until a signal ends it.
func serve(cfg *config.Config, log *logging.Logger, manager *systemd.Service, child *daemonize.Daemon, fd int) error {
	if cfg.Daemon {
		if err := anchorPaths(cfg); err != nil {
			return err
		}
	}
	// Nothing may be written, not even to the log, before it is known that it
	// can be.
	wasFrozen, err := state.Frozen(cfg.StateDir)
	if err != nil {
		return err
	}
	freezer := newFreezer(cfg, log, wasFrozen)
	thaw := func(how func() error) {
		if err := how(); err != nil {
			log.Errorf("%v", err)
		}
	}
	if wasFrozen {
		thaw(freezer.Resume)
	}
	defer thaw(freezer.Close)

	for _, w := range cfg.Warnings {
		log.Warningf("%s", w)
	}
	if cfg.LogFile != "" {
		sink, err := logging.File(cfg.LogFile)
		if err != nil {
			return err
		}
		if err := log.SetSink(sink); err != nil {
			return err
		}
	}
	st, err := state.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer st.Close()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // here, as it would end an agent that is being asked already
	go reopenOnHangup(ctx, hangup, log)
	// Commands that are under way may wait for it.
	defer context.AfterFunc(ctx, func() { thaw(freezer.Close) })()

	gates := []agent.Gate{agent.FrozenGate(freezer.Frozen, freezer.ThawDue)}
	if len(cfg.AllowRPCs) > 0 || len(cfg.BlockRPCs) > 0 {
		gates = append(gates, agent.ListGate(cfg.AllowRPCs, cfg.BlockRPCs))
	}
	a := agent.New(log, gates, commands(cfg, st, log, freezer)...)

	if cfg.Daemon {
		pid, err := pidfile.Create(cfg.PidFile)
		if err != nil {
			return err
		}
		defer pid.Close()
	}
	ch, err := open(ctx, cfg, log, fd)
	if err != nil {
		return err
	}
	defer ch.Close()
	if child != nil {
		if err := child.Ready(); err != nil {
			return err
		}
	}
	if err := manager.Notify(systemd.Ready); err != nil {
		log.Warningf("%v", err)
	}
	go keepAlive(ctx, manager)

	// Most of the program was for the start, but the first client comes first.
	time.AfterFunc(2*time.Second, resident.Trim)
	err = a.Listen(ctx, ch)
	if notifyErr := manager.Notify(systemd.Stopping); notifyErr != nil {
		log.Warningf("%v", notifyErr)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func newFreezer(cfg *config.Config, log *logging.Logger, wasFrozen bool) *freeze.Freezer {
	h := hooks.New(hooks.Config{
		Program:        cfg.FsfreezeHook,
		Dir:            cfg.FreezeHookDir,
		Limit:          cfg.FreezeHookLimit,
		IgnoreFailures: cfg.FreezeHookErrors == config.HookErrorsIgnore,
		Run:            run.Run,
		Audit:          log.Auditf,
		Log:            log.Logf,
	})
	return freeze.New(freeze.Config{
		StateDir:   cfg.StateDir,
		Timeout:    cfg.FreezeTimeout,
		MountLimit: cfg.FreezeMountLimit,
		Limit:      cfg.FreezeLimit,
		Exclude:    cfg.FreezeExclude,
		Before:     h.Freeze,
		After:      h.Thaw,
		Log:        log,
	}, wasFrozen)
}

// anchorPaths makes the paths absolute that are used again after the daemon has
// gone to the root directory. A socket's path is not: it is used once, and its
// length is limited.
func anchorPaths(cfg *config.Config) error {
	paths := []*string{&cfg.LogFile, &cfg.PidFile, &cfg.StateDir, &cfg.FsfreezeHook}
	if cfg.Method == config.MethodVirtioSerial || cfg.Method == config.MethodISASerial {
		paths = append(paths, &cfg.Path)
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		var err error
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}

// target is where the log goes as long as there is no log file.
func target(cfg *config.Config) logging.Sink {
	switch cfg.LogTarget {
	case config.LogSyslog:
		return logging.Syslog()
	case config.LogJournal:
		return logging.Journal()
	default:
		return logging.Stderr()
	}
}

// hostChannel is a channel that can be closed.
type hostChannel interface {
	agent.Channel
	Close() error
}

// open opens the channel to the host. With RetryPath it waits for one that is
// not there yet.
func open(ctx context.Context, cfg *config.Config, log *logging.Logger, fd int) (hostChannel, error) {
	const pause = time.Second
	for waiting := false; ; waiting = true {
		ch, err := openOnce(cfg, fd)
		switch {
		case err == nil:
			return ch, nil
		case !cfg.RetryPath:
			return nil, errors.Join(err, errors.New("failed to initialize guest agent channel"))
		case !waiting:
			log.Warningf("%v: waiting for channel path...", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, errors.New("ended while waiting for the channel")
		}
	}
}

func openOnce(cfg *config.Config, fd int) (hostChannel, error) {
	if fd >= 0 {
		return channel.Inherit(fd)
	}
	switch cfg.Method {
	case config.MethodUnixListen:
		return channel.ListenUnix(cfg.Path)
	case config.MethodVsockListen:
		return channel.ListenVsock(cfg.Path)
	case config.MethodISASerial:
		return channel.OpenSerial(cfg.Path)
	default:
		return channel.OpenVirtioSerial(cfg.Path)
	}
}

// reopenOnHangup opens the log file anew at SIGHUP, after a log rotation.
func reopenOnHangup(ctx context.Context, hangup <-chan os.Signal, log *logging.Logger) {
	for {
		select {
		case <-hangup:
			if err := log.Reopen(); err != nil {
				log.Errorf("%v", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// keepAlive tells the service manager that the agent is alive.
func keepAlive(ctx context.Context, manager *systemd.Service) {
	if manager.Watchdog() == 0 {
		return
	}
	tick := time.NewTicker(manager.Watchdog() / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = manager.Notify(systemd.Alive) // the manager misses it soon enough
		case <-ctx.Done():
			return
		}
	}
}

// boundProcessors keeps the Go runtime to one processor. The agent waits for the
// kernel most of the time, and for that one is enough: it still serves all clients
// at once, as threads that block in a system call do not count. With more, the
// runtime looks for work to share after each request, which takes longer than most
// requests do.
//
// It also sets memory aside for each processor, about 30 kB, and reads how many it
// may use only at its start. Where the machine has many, the program starts itself
// again; programs that the agent starts do not inherit what it is told then.
func boundProcessors() {
	const variable, few = "GOMAXPROCS", 4
	if _, ok := os.LookupEnv(variable); !ok && runtime.NumCPU() > few {
		if path, err := os.Executable(); err == nil {
			_ = syscall.Exec(path, os.Args, append(os.Environ(), variable+"=1")) // failing that, with more memory
		}
	}
	os.Unsetenv(variable) //nolint:errcheck // fails only for malformed names
	runtime.GOMAXPROCS(1)
}
