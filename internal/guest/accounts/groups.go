package accounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// groups returns the groups that a user is in besides his own: of one in /etc/passwd
// those of /etc/group, of another those that getent finds, which is as much to wait for
// as it was to find him. Whatever goes wrong is an error: without his groups the user
// may not see keys that he has.
func (a *Accounts) groups(ctx context.Context, u user) (groups []uint32, err error) {
	found := false
	if !u.listed {
		groups, found, err = a.initgroups(ctx, u.name)
	}
	if err == nil && !found {
		groups, err = a.listedGroups(u.name)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to look up the groups of user '%s': %w", u.name, err)
	}
	return groups, nil
}

// listedGroups returns those of /etc/group.
func (a *Accounts) listedGroups(name string) ([]uint32, error) {
	data, err := a.root.ReadDiskFile("/etc/group")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, strerror.Reason(err)
	}
	return parseGroup(string(data), name), nil
}

// initgroups asks getent. Not every getent can tell who is in which groups: that of
// musl, for one, says that there is no such database. That of glibc succeeds whatever it
// finds.
func (a *Accounts) initgroups(ctx context.Context, name string) (groups []uint32, found bool, err error) {
	output, err := a.run(ctx, run.Command{
		Args:   []string{"getent", "initgroups", "--", name},
		Action: "look up groups",
	})
	if exit, ok := errors.AsType[*run.ExitError](err); ok && exit.Code > 0 {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	groups, found = parseInitgroups(string(output), name)
	return groups, found, nil
}

// maxGroups is NGROUPS_MAX of linux/limits.h, less the user's own.
const maxGroups = 65535

// parseInitgroups returns the groups in a line of getent: a user's name, blanks, and
// numbers with blanks between them.
func parseInitgroups(text, name string) (groups []uint32, found bool) {
	for line := range strings.Lines(text) {
		// A name may have blanks in it. A line without its end was cut off, maybe in
		// the middle of a number.
		rest, found := strings.CutPrefix(line, name+" ")
		if !found || !strings.HasSuffix(line, "\n") {
			continue
		}
		for _, field := range strings.Fields(rest) {
			if gid, err := strconv.ParseUint(field, 10, 32); err == nil && len(groups) < maxGroups {
				groups = append(groups, uint32(gid))
			}
		}
		return groups, true
	}
	return nil, false
}

// parseGroup returns the groups of a user in the text of a file as in group(5).
func parseGroup(text, name string) (groups []uint32) {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(fields) != 4 || !slices.Contains(strings.Split(fields[3], ","), name) {
			continue
		}
		if gid, err := strconv.ParseUint(fields[2], 10, 32); err == nil && len(groups) < maxGroups {
			groups = append(groups, uint32(gid))
		}
	}
	return groups
}
