package main

import (
	"slices"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/config"
	"github.com/bellhop-vm/bellhop/internal/guest/accounts"
	"github.com/bellhop-vm/bellhop/internal/guest/clock"
	"github.com/bellhop-vm/bellhop/internal/guest/cpus"
	"github.com/bellhop-vm/bellhop/internal/guest/disks"
	"github.com/bellhop-vm/bellhop/internal/guest/exec"
	"github.com/bellhop-vm/bellhop/internal/guest/files"
	"github.com/bellhop-vm/bellhop/internal/guest/filesystems"
	"github.com/bellhop-vm/bellhop/internal/guest/freeze"
	"github.com/bellhop-vm/bellhop/internal/guest/memory"
	"github.com/bellhop-vm/bellhop/internal/guest/network"
	"github.com/bellhop-vm/bellhop/internal/guest/power"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/guest/system"
	"github.com/bellhop-vm/bellhop/internal/guest/users"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/state"
)

// commands is what the agent offers on Linux, besides the commands about the
// agent itself.
func commands(cfg *config.Config, st *state.State, log *logging.Logger, freezer *freeze.Freezer) []agent.Handler {
	return slices.Concat(
		clock.Commands(),
		files.Commands(files.New(files.Config{
			Handles: st,
			Audit:   log.Auditf,
		})),
		exec.Commands(exec.New(exec.Config{
			Grace:      cfg.ExecPipeGrace,
			Lifetime:   &cfg.ExecResultLifetime,
			MaxRecords: cfg.ExecMaxRecords,
			MaxOutput:  cfg.ExecMaxOutput,
			Audit:      log.Auditf,
		})),
		system.Commands(system.System{}),
		users.Commands(users.Users{}),
		accounts.Commands(accounts.New(accounts.Config{Run: run.Run})),
		cpus.Commands(cpus.System{}),
		memory.Commands(memory.System{}),
		network.Commands(network.Config{Exclude: cfg.NetworkExclude}),
		disks.Commands(disks.System{}),
		filesystems.Commands(filesystems.System{Audit: log.Auditf}),
		freeze.Commands(freezer),
		power.Commands(power.Config{
			Run:    run.Run,
			Kernel: power.System{},
			Audit:  log.Auditf,
			Log:    log.Logf,
		}),
	)
}
