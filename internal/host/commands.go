package host

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
)

// marshal is for values of our own, which can be marshalled.
func marshal(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (t *tool) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version of bellhop",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if t.output == jsonLine {
				return t.print(marshal(struct {
					Version  string `json:"version"`
					Protocol string `json:"protocol"`
				}{t.version, qga.ProtocolVersion}))
			}
			return t.print(fmt.Sprintf("bellhop %s, protocol of QEMU %s", t.version, qga.ProtocolVersion))
		},
	}
}

func (t *tool) pingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ping TARGET",
		Short: "see whether the agent answers, and how fast",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd.Context(), args[0], t.ping)
		},
	}
}

func (t *tool) ping(ctx context.Context, c *client.Client) error {
	once := func() (time.Duration, error) {
		began := time.Now()
		_, err := client.Call(ctx, c, qga.Ping, qga.Empty{})
		return time.Since(began), err
	}
	// The first one connects and synchronises as well.
	first, err := once()
	if err != nil {
		return err
	}
	trip, err := once()
	if err != nil {
		return err
	}
	if t.output == jsonLine {
		return t.print(marshal(struct {
			Target      string `json:"target"`
			FirstAnswer int64  `json:"first-answer-us"`
			RoundTrip   int64  `json:"round-trip-us"`
		}{t.target.name, first.Microseconds(), trip.Microseconds()}))
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	return t.print(printable(fmt.Sprintf("%s answers: round trip %.2f ms, first answer after %.2f ms",
		t.target.name, ms(trip), ms(first))))
}

func (t *tool) infoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "info TARGET",
		Short: "show the agent's version and its commands",
		Long: `Info shows the agent's version and which commands it offers. SINCE is the QEMU
release that a command came with. With -o json it prints the agent's own reply
to guest-info.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd.Context(), args[0], t.info)
		},
	}
}

func (t *tool) info(ctx context.Context, c *client.Client) error {
	if t.output == jsonLine {
		raw, err := c.CallRaw(ctx, qga.GuestInfo.Name, nil)
		if err != nil {
			return err
		}
		return t.print(string(raw))
	}
	info, err := client.Call(ctx, c, qga.GuestInfo, qga.Empty{})
	if err != nil {
		return err
	}
	off := 0
	slices.SortFunc(info.SupportedCommands, func(a, b qga.CommandInfo) int { return cmp.Compare(a.Name, b.Name) })
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "COMMAND\tENABLED\tSINCE")
	for _, command := range info.SupportedCommands {
		enabled, since := "yes", "-"
		if !command.Enabled {
			enabled = "no"
			off++
		}
		if d, ok := describe(command.Name); ok {
			since = d.Since
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", printable(command.Name), enabled, since)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	count := fmt.Sprintf("%d", len(info.SupportedCommands))
	if off > 0 {
		count += fmt.Sprintf(", %d of them turned off", off)
	}
	return t.print(fmt.Sprintf("Version:   %s\nCommands:  %s\n\n%s", printable(info.Version), count, b.String()))
}

// describe looks a command up in the protocol.
func describe(name string) (qga.Info, bool) {
	for _, d := range qga.Commands() {
		if info := d.Describe(); info.Name == name {
			return info, true
		}
	}
	return qga.Info{}, false
}

func (t *tool) callCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "call TARGET COMMAND [ARGUMENTS]",
		Short: "call any command of the agent",
		Long: `Call sends one command, with its ARGUMENTS as a JSON object, and prints the
value that the agent returns: laid out for people, or as it is with -o json.
A command that sends no reply when it succeeds, such as guest-shutdown, prints
nothing.`,
		Example: `  bellhop call /run/vm.sock guest-get-osinfo
  bellhop call unix:/run/vm.sock guest-file-open '{"path": "/etc/hostname"}'`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			var arguments json.RawMessage
			if len(args) == 3 {
				arguments = json.RawMessage(args[2])
				if err := checkArguments(args[2]); err != nil {
					return err
				}
			}
			return t.ask(cmd.Context(), args[0], func(ctx context.Context, c *client.Client) error {
				return t.call(ctx, c, args[1], arguments)
			})
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return nil, cobra.ShellCompDirectiveDefault // a path
			case 1:
				var names []string
				for _, d := range qga.Commands() {
					if c := d.Describe(); strings.HasPrefix(c.Name, begun) {
						names = append(names, cobra.CompletionWithDesc(c.Name, "since "+c.Since))
					}
				}
				return names, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// checkArguments accepts a JSON object.
func checkArguments(s string) error {
	var members map[string]json.RawMessage
	err := json.Unmarshal([]byte(s), &members)
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		at := utf8.RuneCountInString(s[:min(int(e.Offset), len(s))])
		return usagef("the arguments are not JSON: %w (character %d)", e, at)
	}
	if err != nil || members == nil {
		return usagef(`the arguments are not a JSON object such as {"path": "/etc/hostname"}`)
	}
	return nil
}

func (t *tool) call(ctx context.Context, c *client.Client, command string, arguments json.RawMessage) error {
	result, err := c.CallRaw(ctx, command, arguments)
	switch {
	case err != nil:
		return err
	case result == nil:
		return nil
	case t.output == jsonLine:
		return t.print(string(result))
	}
	return t.print(pretty(result))
}
