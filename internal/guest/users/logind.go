package users

import (
	"strconv"
	"strings"
)

// Where systemd-logind keeps what it knows. Its library reads it there, so the
// form does not change although it is documented nowhere.
const (
	sessionDir = "/run/systemd/sessions/"
	userDir    = "/run/systemd/users/"
)

// sessions returns the logins of people that systemd-logind has on record, the
// earliest first.
func (u Users) sessions() []login {
	names, err := u.Root.ReadDir(sessionDir)
	if err != nil {
		return nil
	}
	var logins []login
	for _, name := range names {
		if strings.Contains(name, ".") {
			continue // a pipe, by which logind learns of the session's end, or a file being written
		}
		data, err := u.Root.ReadFile(sessionDir + name)
		if err != nil {
			continue // it has just ended
		}
		if l, ok := u.session(string(data)); ok {
			logins = append(logins, l)
		}
	}
	byTime(logins)
	return logins
}

// session returns the login of a session, if somebody is logged in by it: a
// login screen, a cron job and the service manager of a user have sessions too,
// and so has one that has left programs behind.
func (u Users) session(text string) (login, bool) {
	s := parseEnv(text)
	if !strings.HasPrefix(s["CLASS"], "user") || s["STATE"] == "closing" {
		return login{}, false
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
	if err != nil || micros < 0 || user == "" {
		return login{}, false
	}
	return login{user, micros}, true
}

// parseEnv returns the assignments in a file of them. None of the values that
// matter here is ever quoted.
func parseEnv(text string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			m[key] = value
		}
	}
	return m
}
