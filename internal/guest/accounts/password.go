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
	// as there are, and each only up to a NUL. The C agent lets a NUL pass, and
	// complains of the name first then.
	badPassword := qga.Failure("forbidden characters in raw password")
	switch {
	case bytes.IndexByte(args.Password, '\n') >= 0:
		return qga.Empty{}, badPassword
	case strings.ContainsAny(args.Username, ":\n\x00"):
		return qga.Empty{}, qga.Failure("forbidden characters in username")
	case bytes.IndexByte(args.Password, 0) >= 0:
		return qga.Empty{}, badPassword
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
