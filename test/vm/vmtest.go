//go:build linux

package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"
	"time"
)

// Need skips a test where guests cannot be booted, or not with these images;
// with BELLHOP_VM=required in the environment, as continuous integration has it,
// the test fails instead.
func Need(tb testing.TB, images ...Image) {
	tb.Helper()
	need(tb, Check(images...))
}

// NeedPrograms does the same where programs are missing on the host.
func NeedPrograms(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			need(tb, fmt.Errorf("not all that the test needs is here, please run make setup: %w", err))
		}
	}
}

func need(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case err == nil:
	case os.Getenv("BELLHOP_VM") == "required":
		tb.Fatal(err)
	default:
		tb.Skip(err)
	}
}

// Start boots a guest for a test, which it skips or fails as [Need] says. The
// guest is stopped when the test is over, and its console is shown if the test
// has failed.
func Start(tb testing.TB, c Config) *Guest {
	tb.Helper()
	Need(tb, c.Image)
	// The machine may be busy with other tests; three seconds are usual, and
	// 25 with an image.
	ctx, cancel := context.WithTimeout(tb.Context(), 5*time.Minute)
	defer cancel()
	g, err := Boot(ctx, c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Logf("guest booted in %.1f s", g.BootTime().Seconds())
	tb.Cleanup(func() {
		if err := g.Stop(context.Background()); err != nil {
			tb.Error(err)
		}
		if tb.Failed() {
			tb.Logf("console:\n%s", g.Console())
		}
	})
	return g
}

// Build builds a command of this module, for example "./cmd/qemu-ga" seen from
// its root, as a program that a guest can run.
func Build(tb testing.TB, pkg string) Program {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), path.Base(pkg))
	cmd := exec.CommandContext(tb.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file,
		"github.com/bellhop-vm/bellhop/"+path.Clean(pkg))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return Program{Path: file}
}
