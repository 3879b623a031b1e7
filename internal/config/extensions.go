package config

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Extensions are the keys of the group [bellhop].
type Extensions struct {
	// ExecPipeGrace is how long after the exit of a guest-exec process its
	// output pipes are awaited, which processes that it left behind may hold
	// open. 0 waits for ever, as the C agent does.
	ExecPipeGrace time.Duration

	// ExecResultLifetime is how long the result of a guest-exec process is
	// kept after it was first reported. 0 drops it with the first report.
	ExecResultLifetime time.Duration

	// ExecMaxRecords and ExecMaxOutput bound how many guest-exec processes are
	// remembered and how many bytes of their output are held, all together.
	ExecMaxRecords int
	ExecMaxOutput  int

	// FreezeTimeout is how long file systems stay frozen at the most, from when
	// the freeze is complete. 0 is for ever, as with the C agent.
	FreezeTimeout time.Duration

	// FreezeMountLimit is how long the freeze of one file system may take, and
	// FreezeLimit that of all; a freeze that takes longer fails.
	FreezeMountLimit time.Duration
	FreezeLimit      time.Duration

	// FreezeExclude holds patterns, of the form of path.Match, for the mount
	// points of file systems that are not frozen.
	FreezeExclude []string

	// FreezeHookDir, when not empty, is a directory of programs to run before a
	// freeze and after a thaw.
	FreezeHookDir string

	// FreezeHookLimit is how long each hook may take, FsfreezeHook included.
	FreezeHookLimit time.Duration

	// FreezeHookErrors says whether a hook in FreezeHookDir that fails makes the
	// freeze fail.
	FreezeHookErrors HookErrors

	// LogTarget is where the log goes when there is no LogFile.
	LogTarget LogTarget

	// NetworkExclude holds patterns, of the form of path.Match, for the names of
	// the network interfaces that are not reported.
	NetworkExclude []string
}

// LogTarget is a destination of the log.
type LogTarget string

// The log targets.
const (
	LogStderr  LogTarget = "stderr"
	LogSyslog  LogTarget = "syslog"
	LogJournal LogTarget = "journal"
)

// HookErrors is what becomes of a freeze when a hook fails.
type HookErrors string

// The values of HookErrors.
const (
	HookErrorsFail   HookErrors = "fail"
	HookErrorsIgnore HookErrors = "ignore"
)

func defaultExtensions() Extensions {
	return Extensions{
		ExecPipeGrace:      2 * time.Second,
		ExecResultLifetime: 10 * time.Minute,
		ExecMaxRecords:     1024,
		ExecMaxOutput:      128 << 20,
		FreezeTimeout:      10 * time.Minute,
		FreezeMountLimit:   time.Minute,
		FreezeLimit:        3 * time.Minute,
		FreezeHookLimit:    time.Minute,
		FreezeHookErrors:   HookErrorsFail,
		LogTarget:          LogStderr,
	}
}

// A setting is a value that is written as text.
type setting interface {
	parse(text string) error
	text() string
}

// settings returns the keys of the group, in the order of a dump.
func (x *Extensions) settings() []struct {
	key string
	setting
} {
	return []struct {
		key string
		setting
	}{
		{"exec-pipe-grace", seconds{&x.ExecPipeGrace, 0}},
		{"exec-result-lifetime", seconds{&x.ExecResultLifetime, 0}},
		{"exec-max-records", number{&x.ExecMaxRecords, 1 << 20}},
		{"exec-max-output", number{&x.ExecMaxOutput, 1 << 40}},
		{"freeze-timeout", seconds{&x.FreezeTimeout, 0}},
		{"freeze-mount-limit", seconds{&x.FreezeMountLimit, 1}},
		{"freeze-limit", seconds{&x.FreezeLimit, 1}},
		{"freeze-exclude", patterns{&x.FreezeExclude}},
		{"freeze-hook-dir", directory{&x.FreezeHookDir}},
		{"freeze-hook-limit", seconds{&x.FreezeHookLimit, 1}},
		{"freeze-hook-errors", choice[HookErrors]{&x.FreezeHookErrors, []HookErrors{HookErrorsFail, HookErrorsIgnore}}},
		{"log-target", choice[LogTarget]{&x.LogTarget, []LogTarget{LogStderr, LogSyslog, LogJournal}}},
		{"network-exclude", patterns{&x.NetworkExclude}},
	}
}

// apply takes over the group [bellhop]. Unlike in [general], where keys of
// other versions must be borne, a key that is unknown here is an error: it is a
// misspelt setting, which must not pass unnoticed.
func (x *Extensions) apply(f *keyFile) error {
	for _, e := range f.order {
		if e.group != groupBellhop {
			continue
		}
		value, _, err := f.text(groupBellhop, e.key)
		if err == nil {
			err = x.assign(e.key, strings.TrimRight(value, blanks))
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", e.line, err)
		}
	}
	return nil
}

func (x *Extensions) assign(key, value string) error {
	for _, s := range x.settings() {
		if s.key != key {
			continue
		}
		if err := s.parse(value); err != nil {
			return fmt.Errorf("key %q is %q: %w", key, value, err)
		}
		return nil
	}
	return fmt.Errorf("unknown key %q in group [%s]", key, groupBellhop)
}

// dump returns the group as it is written in a file.
func (x *Extensions) dump() []byte {
	b := []byte("[" + groupBellhop + "]\n")
	for _, s := range x.settings() {
		b = appendText(b, s.key, s.text())
	}
	return b
}

// seconds is a time, of no less than least seconds.
type seconds struct {
	to    *time.Duration
	least int64
}

func (s seconds) parse(text string) error {
	// A hundred years: far from the end of a time.Duration.
	n, err := parseNumber(text, s.least, 100*365*24*3600)
	if err == nil {
		*s.to = time.Duration(n) * time.Second
	}
	return err
}

func (s seconds) text() string { return strconv.FormatInt(int64(*s.to/time.Second), 10) }

// number is a positive number, of no more than most.
type number struct {
	to   *int
	most int64
}

func (s number) parse(text string) error {
	n, err := parseNumber(text, 1, s.most)
	if err == nil {
		*s.to = int(min(n, math.MaxInt))
	}
	return err
}

func (s number) text() string { return strconv.Itoa(*s.to) }

func parseNumber(text string, low, high int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("want a number between %d and %d", low, high)
	}
	return n, nil
}

// choice is one of some words.
type choice[T ~string] struct {
	to   *T
	from []T
}

func (s choice[T]) parse(text string) error {
	if !slices.Contains(s.from, T(text)) {
		words := make([]string, len(s.from))
		for i, w := range s.from {
			words[i] = string(w)
		}
		last := len(words) - 1
		return errors.New("want " + strings.Join(words[:last], ", ") + " or " + words[last])
	}
	*s.to = T(text)
	return nil
}

func (s choice[T]) text() string { return string(*s.to) }

// patterns is patterns of the form of path.Match, with commas between them.
// Blanks around one are no part of it.
type patterns struct{ to *[]string }

func (s patterns) parse(text string) error {
	var list []string
	for pattern := range strings.SplitSeq(text, ",") {
		if pattern = strings.Trim(pattern, blanks); pattern == "" {
			continue
		}
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("%q: %w", pattern, err)
		}
		list = append(list, pattern)
	}
	*s.to = list
	return nil
}

func (s patterns) text() string { return strings.Join(*s.to, ",") }

// directory is an absolute path, as the agent may leave the directory that it
// was started in. Empty is none.
type directory struct{ to *string }

func (s directory) parse(text string) error {
	if text != "" && !path.IsAbs(text) {
		return errors.New("want an absolute path")
	}
	*s.to = text
	return nil
}

func (s directory) text() string { return *s.to }
