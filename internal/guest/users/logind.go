package users

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// Where systemd-logind keeps what it knows. Its library reads it there, so the
// form does not change although it is documented nowhere.
const (
	sessionDir = "/run/systemd/sessions/"
	userDir    = "/run/systemd/users/"
)

// sessions returns the logins of people that systemd-logind has on record, the
// earliest first. A session that cannot be made out is left out, unless there is
// nothing else to tell.
func (u Users) sessions() (logins []login, known bool, err error) {
	names, err := u.Root.ReadDir(sessionDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("open(%q): %w", sessionDir, strerror.Reason(err))
	}
	var failed error
	for _, name := range names {
		if strings.Contains(name, ".") {
			continue // a pipe, by which logind learns of the session's end, or a file being written
		}
		data, err := u.Root.ReadFile(sessionDir + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		var l *login
		if err == nil {
			l, err = u.session(string(data))
		}
		switch {
		case err != nil && failed == nil:
			failed = fmt.Errorf("read(%q): %w", sessionDir+name, strerror.Reason(err))
		case l != nil:
			logins = append(logins, *l)
		}
	}
	if len(logins) == 0 && failed != nil {
		return nil, false, failed
	}
	byTime(logins)
	return logins, true, nil
}

// errNoSession is what is wrong with the file of a session that is something else, or
// the beginning of one.
var errNoSession = errors.New("not a session")

// session returns the login of a session, or nil if nobody is logged in by it: a
// login screen, a cron job and the service manager of a user have sessions too,
// and so has one that has left programs behind.
func (u Users) session(text string) (*login, error) {
	s := parseEnv(text)
	if !strings.HasSuffix(text, "\n") || s["CLASS"] == "" {
		return nil, errNoSession
	}
	if !strings.HasPrefix(s["CLASS"], "user") || s["STATE"] == "closing" {
		return nil, nil
	}
	user, since := s["USER"], s["REALTIME"]
	if _, err := strconv.ParseUint(s["UID"], 10, 32); err == nil && (user == "" || since == "") {
		// An error leaves nothing to be found.
		data, _ := u.Root.ReadFile(userDir + s["UID"])
		owner := parseEnv(string(data))
		if user == "" {
			user = owner["NAME"]
		}
		if since == "" {
			since = owner["REALTIME"]
		}
	}
	micros, err := strconv.ParseInt(since, 10, 64)
	if err != nil || micros < 0 || user == "" || !isName(user) {
		return nil, errNoSession
	}
	return &login{user, micros}, nil
}

// parseEnv returns the assignments in a file of them. None of the values that
// matter here is ever quoted.
func parseEnv(text string) map[string]string {
	m := make(map[string]string)
	for line := range root.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			m[key] = value
		}
	}
	return m
}
