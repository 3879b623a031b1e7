package accounts

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
)

// A user is what there is to know about one to work in his home directory.
type user struct {
	name     string
	uid, gid uint32
	home     string
	listed   bool // in /etc/passwd, and not only known to getent
}

// errUnknown is a user that does not exist.
var errUnknown = errors.New("no such user")

// lookup finds a user by name: in /etc/passwd, or else where getent looks, which
// is wherever the guest is told to look.
func (a *Accounts) lookup(ctx context.Context, name string) (user, error) {
	u, err := a.find(ctx, name)
	if errors.Is(err, errUnknown) {
		// The words of the C library for an error number that nobody has set:
		// that is how the C agent comes by them.
		return user{}, fmt.Errorf("failed to lookup user '%s': Success", name)
	}
	if err != nil {
		return user{}, fmt.Errorf("failed to lookup user '%s': %w", name, err)
	}
	return u, nil
}

func (a *Accounts) find(ctx context.Context, name string) (user, error) {
	if name == "" {
		return user{}, errUnknown
	}
	// A system may have no such file, and know its users all the same.
	if data, err := a.root.ReadDiskFile("/etc/passwd"); err == nil {
		if u, ok := parsePasswd(string(data), name); ok {
			u.listed = true
			return u, nil
		}
	}
	if isNumber(name) {
		return user{}, errUnknown // getent would take it for a user ID
	}
	output, err := a.run(ctx, run.Command{
		Args:   []string{"getent", "passwd", "--", name},
		Action: "look up user",
	})
	if err != nil {
		const notFound = 2
		exit, exited := errors.AsType[*run.ExitError](err)
		_, absent := errors.AsType[*run.StartError](err)
		if absent || exited && exit.Code == notFound {
			return user{}, errUnknown
		}
		return user{}, err
	}
	u, ok := parsePasswd(string(output), "")
	if !ok {
		return user{}, errUnknown
	}
	return u, nil
}

// isNumber reports whether strtoul(3) would leave nothing of s.
func isNumber(s string) bool {
	s = strings.TrimLeft(s, " \t\v\f\r\n")
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	return strings.Trim(s, "0123456789") == ""
}

// parsePasswd returns the entry of a user in the text of a file as in
// passwd(5), or the first one if name is empty. Lines that are none are skipped,
// and so are those that begin with + or -: they say whom to ask further.
func parsePasswd(text, name string) (user, bool) {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(fields) != 7 || fields[0] == "" || fields[0][0] == '+' || fields[0][0] == '-' {
			continue
		}
		if name != "" && fields[0] != name {
			continue
		}
		uid, errUID := strconv.ParseUint(fields[2], 10, 32)
		gid, errGID := strconv.ParseUint(fields[3], 10, 32)
		if errUID != nil || errGID != nil {
			continue
		}
		// An empty home is the root's, as for login(1).
		return user{
			name: fields[0],
			uid:  uint32(uid), gid: uint32(gid),
			home: path.Join("/", fields[5]),
		}, true
	}
	return user{}, false
}
