// Package users tells who is logged in to the guest.
//
// Where there is a utmp file it is the authority, as it is for who(1).
// Distributions give it up, because its times end in 2038; theirs is what
// systemd-logind knows of its sessions.
package users

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
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

// get never fails: whoever cannot be found out about is not listed.
func (u Users) get(context.Context, qga.Empty) ([]qga.User, error) {
	data, err := u.readUtmp()
	switch {
	case err == nil:
		return earliest(parseUtmp(data, layoutOf(len(data)))), nil
	case errors.Is(err, fs.ErrNotExist):
		return earliest(u.sessions()), nil
	}
	return []qga.User{}, nil
}

// readUtmp reads the file by the name that the C library knows it by, which
// mostly leads to /run.
func (u Users) readUtmp() ([]byte, error) {
	name, err := u.Root.Resolve("/var/run/utmp")
	if err != nil {
		return nil, err
	}
	return u.Root.ReadFile(name)
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
