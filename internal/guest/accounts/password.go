package accounts

import (
	"bytes"
	"context"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/qga"
)

// setPassword leaves it to chpasswd, which knows where the guest keeps its
// passwords and what it expects of them.
func (a *Accounts) setPassword(ctx context.Context, args qga.SetUserPasswordArgs) (qga.Empty, error) {
	// chpasswd reads lines of name and password with a colon between, as many
	// as there are, and each only up to a NUL.
	if bytes.ContainsAny(args.Password, "\n\x00") {
		return qga.Empty{}, qga.Failure("forbidden characters in raw password")
	}
	if strings.ContainsAny(args.Username, ":\n\x00") {
		return qga.Empty{}, qga.Failure("forbidden characters in username")
	}
	c := run.Command{Args: []string{"chpasswd"}, Action: "set user password"}
	if args.Crypted {
		c.Args = append(c.Args, "-e")
	}
	c.Input = append(c.Input, args.Username...)
	c.Input = append(c.Input, ':')
	c.Input = append(c.Input, args.Password...)
	c.Input = append(c.Input, '\n')
	_, err := a.run(ctx, c)
	return qga.Empty{}, err
}
