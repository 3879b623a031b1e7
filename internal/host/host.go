// Package host is the tool for the host: its command line, what it prints, and
// the advice it gives when something fails. What it does to guests is all in
// package qga/client.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
)

// The exit codes. They tell a script whether the guest has been touched.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNoAgent     = 3
	exitNoReply     = 4
	exitInterrupted = 130
)

const long = `Bellhop talks to the guest agent in a QEMU virtual machine.

A TARGET is unix:PATH, or just PATH if it has a slash: the socket on the host
that QEMU connects to the guest's port org.qemu.guest_agent.0, or one on which
an agent listens itself.

Exit codes:
  0    done
  1    the agent refused or failed; or its answer could not be written
  2    wrong usage
  3    no agent: no connection, or nobody answers; nothing was done in the guest
  4    no reply to the command in time, or none that makes sense: whether it
       was carried out is not known
  130  interrupted`

// A tool is one run of the program.
type tool struct {
	version        string
	stdout, stderr io.Writer

	output  format
	timeout time.Duration

	// running says that the command line was in order.
	running bool
	// target is the one that was asked, for advice about it.
	target target
}

// Run carries out a command line, without the name of the program, and returns
// the exit code.
func Run(ctx context.Context, version string, args []string, stdout, stderr io.Writer) int {
	t := &tool{version: version, stdout: stdout, stderr: stderr, output: text}
	root := t.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "bellhop: "+printable(strings.TrimSpace(err.Error())))
	hint := t.advice(ctx, err)
	if !t.running {
		hint = fmt.Sprintf("See '%s --help'.", cmd.CommandPath())
		if cmd.HasParent() {
			hint = "Usage: " + cmd.UseLine() + "\n" + hint
		}
	}
	if hint != "" {
		fmt.Fprintln(stderr, printable(hint))
	}
	return t.exitCode(err)
}

// A usageError is a mistake in the command line that only the command found.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func (t *tool) exitCode(err error) int {
	_, usage := errors.AsType[usageError](err)
	_, refused := errors.AsType[*qga.Error](err)
	switch {
	case usage || !t.running:
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case refused:
		return exitFailed
	case errors.Is(err, client.ErrUnreachable), errors.Is(err, client.ErrNoAnswer):
		return exitNoAgent
	case errors.Is(err, errOutput):
		return exitFailed
	}
	return exitNoReply
}

func (t *tool) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "bellhop",
		Short: "talk to the agent in a QEMU guest",
		Long:  long,
		// Run prints errors, with advice in place of the usage.
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if t.timeout < 0 {
				return usagef("--timeout must not be negative")
			}
			t.running = true
			return nil
		},
	}
	root.SetOut(t.stdout)
	root.SetErr(t.stderr)
	flags := root.PersistentFlags()
	flags.VarP(&t.output, "output", "o", "print text, for people, or json, for programs")
	flags.DurationVar(&t.timeout, "timeout", client.DefaultTimeout,
		fmt.Sprintf("give up after this long, 0 for never; an agent that does not answer at all is given up after %v", client.DefaultSyncTimeout))
	_ = root.RegisterFlagCompletionFunc("output",
		cobra.FixedCompletions([]string{string(text), string(jsonLine)}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(t.pingCommand(), t.infoCommand(), t.callCommand(), t.versionCommand())
	return root
}

// A format is what -o chooses.
type format string

const (
	text     format = "text"
	jsonLine format = "json"
)

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "format" }

func (f *format) Set(s string) error {
	switch format(s) {
	case text, jsonLine:
		*f = format(s)
		return nil
	}
	return errors.New("want text or json")
}

// ask connects the function with the target and gives it the time that it has.
func (t *tool) ask(ctx context.Context, name string, fn func(context.Context, *client.Client) error) error {
	target, err := parseTarget(name)
	if err != nil {
		return err
	}
	t.target = target
	if t.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.timeout)
		defer cancel()
	}
	c := client.New(target.road)
	c.Timeout = 0
	defer c.Close()
	return fn(ctx, c)
}

// errOutput is that the result could not be written.
var errOutput = errors.New("cannot write the output")

// print writes to the standard output.
func (t *tool) print(s string) error {
	if !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	if _, err := io.WriteString(t.stdout, s); err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	return nil
}
