// Package hooks runs the programs that get others ready for a freeze: databases,
// mostly, that have more to write down than the kernel knows of.
//
// There are two kinds. The program of option -F is run as the C agent runs it;
// on many systems it is a script that runs those of a directory in turn, and
// never fails. A directory can also be run by this package itself, which asks
// each program in it, and minds the answers.
package hooks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/stuck"
)

// Config says which hooks there are.
type Config struct {
	// Program is the hook of option -F. Empty means none.
	Program string
	// Dir is a directory of hooks, which need not exist. Empty means none. As
	// Program often runs those of a directory by itself, they should not be
	// given both.
	Dir string
	// Limit is how long each hook may take. Then it is killed, with all that it
	// started, and has failed. Zero means run.DefaultLimit.
	Limit time.Duration
	// IgnoreFailures makes failures of the hooks in Dir mere messages.
	IgnoreFailures bool

	// Run runs a hook.
	Run run.Func
	// Audit notes that a hook is run, Log what it had to say.
	Audit func(format string, args ...any)
	Log   func(level logging.Level, format string, args ...any)
}

// Hooks run the programs of a Config. They expect that Freeze and Thaw are not
// called at the same time.
type Hooks struct {
	cfg      Config
	listings stuck.Calls[string, []string]
}

// New returns the hooks of a configuration.
func New(cfg Config) *Hooks {
	if cfg.Limit == 0 {
		cfg.Limit = run.DefaultLimit
	}
	return &Hooks{cfg: cfg}
}

// The argument of a hook.
const (
	freeze = "freeze"
	thaw   = "thaw"
)

// A hook is one program.
type hook struct {
	path string
	// native says that it is one of the directory, for which we have the say.
	native bool
}

// Freeze runs the hooks before a freeze: Program first, then those of Dir by
// name. If it returns an error there must be no freeze, and there is nothing to
// be thawed: hooks that had been run before the failure have been told.
//
// Program itself is not told that it failed, as with the C agent, unless it was
// killed and so could not tidy up. A hook of Dir is.
func (h *Hooks) Freeze(ctx context.Context) error {
	list, err := h.list()
	if err != nil {
		return err
	}
	for i, each := range list {
		err := h.run(ctx, each, freeze)
		if err == nil {
			continue
		}
		begun := list[:i]
		if each.native && started(err) || killed(err) {
			begun = list[:i+1]
		}
		_ = h.thaw(ctx, begun)
		return err
	}
	return nil
}

// Thaw runs the hooks after a thaw, or in place of one if after Freeze there
// was no freeze: in the reverse order of Freeze, and each whatever became of the
// others. It returns the first error. That ctx is done does not stop it, as a
// hook that is not run may leave a database closed to its users.
func (h *Hooks) Thaw(ctx context.Context) error {
	list, listErr := h.list()
	if err := h.thaw(ctx, list); err != nil {
		return err
	}
	return listErr
}

func (h *Hooks) thaw(ctx context.Context, list []hook) error {
	ctx = context.WithoutCancel(ctx)
	var first error
	for _, each := range slices.Backward(list) {
		if err := h.run(ctx, each, thaw); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// list returns the hooks in the order of a freeze. If the directory cannot be
// read, that is the error, and Program alone the list.
func (h *Hooks) list() ([]hook, error) {
	var list []hook
	if h.cfg.Program != "" {
		list = append(list, hook{path: h.cfg.Program})
	}
	if h.cfg.Dir == "" {
		return list, nil
	}
	entries, err := h.listings.Do(h.cfg.Dir, stuck.DiskLimit, func() ([]string, error) { return executables(h.cfg.Dir) })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return list, nil
	case err != nil && h.cfg.IgnoreFailures:
		h.cfg.Log(logging.Warning, "cannot list fsfreeze hooks: %v", err)
		return list, nil
	case err != nil:
		return list, fmt.Errorf("cannot list fsfreeze hooks: %w", err)
	}
	for _, path := range entries {
		list = append(list, hook{path: path, native: true})
	}
	return list, nil
}

// executables returns the paths of the hooks in a directory, sorted by bytes.
func executables(dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if meant(e.Name()) && executable(path) {
			paths = append(paths, path)
		}
	}
	return paths, err
}

// meant reports whether a file of that name is a hook, and not what an editor
// or a package manager put beside one. The patterns are those of the script
// that distributions ship as the program of option -F.
func meant(name string) bool {
	for _, pattern := range []string{".*", "*~", "*.bak", "*.orig", "*.sample", "*.rpm*", "*.dpkg-*"} {
		if ok, _ := filepath.Match(pattern, name); ok {
			return false
		}
	}
	return true
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// run runs one hook.
func (h *Hooks) run(ctx context.Context, each hook, arg string) error {
	if each.native {
		h.cfg.Audit("executing fsfreeze hook %s with arg '%s'", each.path, arg)
	} else {
		h.cfg.Audit("executing fsfreeze hook with arg '%s'", arg)
	}
	began := time.Now()
	output, err := h.cfg.Run(ctx, run.Command{
		Args:   []string{each.path, arg},
		Action: "execute fsfreeze hook",
		Limit:  h.cfg.Limit,
	})
	took := time.Since(began).Round(time.Millisecond)
	if err == nil {
		h.cfg.Log(logging.Message, "fsfreeze hook %s %s took %v%s", each.path, arg, took, said(output))
		return nil
	}
	h.cfg.Log(logging.Warning, "fsfreeze hook %s %s failed after %v: %v%s", each.path, arg, took, err, said(output))
	switch {
	case !each.native:
		return err
	case h.cfg.IgnoreFailures && ctx.Err() == nil:
		return nil
	}
	return fmt.Errorf("fsfreeze hook %s: %w", filepath.Base(each.path), err)
}

// said returns what is logged of a hook's output: its end, as that is where
// scripts say why they end.
func said(output []byte) string {
	const most = 2 << 10
	text := strings.TrimSpace(string(output[max(0, len(output)-most):]))
	if text == "" {
		return ""
	}
	return ": " + text
}

// started reports whether the program of an error has done anything.
func started(err error) bool {
	_, ok := errors.AsType[*run.StartError](err)
	return !ok
}

// killed reports whether the program was not allowed to end.
func killed(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
