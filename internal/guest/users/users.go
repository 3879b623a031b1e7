// Package users tells who is logged in to the guest.
//
// Where there is a utmp file it is the authority, as it is for who(1).
// Distributions give it up, because its times end in 2038, and some leave an empty file
// behind; theirs is what systemd-logind knows of its sessions.
package users

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/qga"
)

// Users are those logged in. The zero value is about the running system.
type Users struct {
	// Root takes the place of the root directory.
	Root root.Dir
}

// Commands returns the commands of this package.
func Commands(u Users) []agent.Handler {
	return []agent.Handler{agent.Handle(qga.GetUsers, u.get)}
}

// get lists nobody where nobody is on record, and where there are no records; but not
// because they cannot be read.
func (u Users) get(context.Context, qga.Empty) ([]qga.User, error) {
	var failed error
	for _, records := range []func() (logins []login, known bool, err error){u.utmp, u.sessions} {
		logins, known, err := records()
		if len(logins) > 0 || known && failed == nil {
			return earliest(logins), nil
		}
		if failed == nil {
			failed = err
		}
	}
	if failed != nil {
		return nil, failed
	}
	return []qga.User{}, nil
}

// utmpFile is how the C library calls the file, which mostly is in /run.
const utmpFile = "/var/run/utmp"

// utmp returns the logins on record there. They are known if there is any record: at
// least one is of when the system was started, where it is kept.
func (u Users) utmp() (logins []login, known bool, err error) {
	var data []byte
	name, err := u.Root.Resolve(utmpFile)
	if err == nil {
		data, err = u.Root.ReadFile(name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("open(%q): %w", utmpFile, strerror.Reason(err))
	}
	logins, known = parseUtmp(data, layoutOf(len(data)))
	if !known && len(data) > 0 {
		err = fmt.Errorf("read(%q): no records", utmpFile)
	}
	return logins, known, err
}

// isName reports whether name can be a user's: what cannot be printed is not.
func isName(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) })
}

// A login is somebody who has logged in, and when.
type login struct {
	user   string
	micros int64 // since the Unix epoch, never negative
}

// earliest returns each user once, in the order of the logins, with the time
// of the first one.
func earliest(logins []login) []qga.User {
	users := []qga.User{} // nobody is an empty list in the reply
	place := make(map[string]int, len(logins))
	for _, l := range logins {
		when := float64(l.micros) / 1e6
		i, ok := place[l.user]
		if !ok {
			place[l.user] = len(users)
			users = append(users, qga.User{User: l.user, LoginTime: when})
			continue
		}
		users[i].LoginTime = min(users[i].LoginTime, when)
	}
	return users
}

// byTime sorts logins.
func byTime(logins []login) {
	slices.SortStableFunc(logins, func(a, b login) int { return cmp.Compare(a.micros, b.micros) })
}
