package accounts

import (
	"context"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/guest/run/runtest"
	"github.com/bellhop-vm/bellhop/qga"
)

func TestSetPassword(t *testing.T) {
	const (
		forbiddenPassword = "forbidden characters in raw password"
		forbiddenName     = "forbidden characters in username"
	)
	for _, test := range []struct {
		name, password string
		crypted        bool
		args, input    string // "" if nothing is run
		err            string
	}{
		{"bob", "secret", false, "chpasswd", "bob:secret\n", ""},
		{"bob", "$6$x$y", true, "chpasswd -e", "bob:$6$x$y\n", ""},
		{"bob", "a:b", false, "chpasswd", "bob:a:b\n", ""},
		{"bob", "", false, "chpasswd", "bob:\n", ""},
		{"", "x", false, "chpasswd", ":x\n", ""},
		{"b\u00f6b", "\xff\xfe", false, "chpasswd", "b\u00f6b:\xff\xfe\n", ""},
		{"bob", "a\nb", false, "", "", forbiddenPassword},
		{"bob", "a\nroot:x", true, "", "", forbiddenPassword},
		{"bob", "ab\x00cd", false, "", "", forbiddenPassword},
		{"bo:b", "a", false, "", "", forbiddenName},
		{"bo\nb", "a", false, "", "", forbiddenName},
		{"bo\nb", "a\nb", false, "", "", forbiddenPassword},
		{"bo\x00b", "a", false, "", "", forbiddenName},
	} {
		recorder := &runtest.Recorder{}
		a := New(Config{Run: recorder.Run})
		_, err := a.setPassword(t.Context(), qga.SetUserPasswordArgs{
			Username: test.name, Password: []byte(test.password), Crypted: test.crypted,
		})
		if text(err) != test.err {
			t.Errorf("%q %q: got %v, want %q", test.name, test.password, err, test.err)
		}
		var args, input string
		for _, c := range recorder.Take() {
			args += strings.Join(c.Args, " ")
			input += string(c.Input)
		}
		if args != test.args || input != test.input {
			t.Errorf("%q %q: ran %q with %q, want %q with %q", test.name, test.password, args, input, test.args, test.input)
		}
	}
}

func TestSetPasswordFails(t *testing.T) {
	a := New(Config{Run: func(_ context.Context, c run.Command) ([]byte, error) {
		return nil, &run.ExitError{Action: c.Action, Code: 1, Output: []byte("chpasswd: line 1: user 'bob' does not exist\n")}
	}})
	_, err := a.setPassword(t.Context(), qga.SetUserPasswordArgs{Username: "bob", Password: []byte("secret")})
	const want = "child process has failed to set user password: chpasswd: line 1: user 'bob' does not exist\n"
	if text(err) != want {
		t.Errorf("got %q, want %q", text(err), want)
	}
}
