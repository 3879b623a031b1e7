package accounts

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/guest/run/runtest"
)

func TestParseInitgroups(t *testing.T) {
	for text, want := range map[string]struct {
		groups []uint32
		found  bool
	}{
		"nadia                 4002 4003\n":    {[]uint32{4002, 4003}, true},
		"nadia                \n":              {nil, true},
		"nadia 4294967295 4294967296 -1 x 7\n": {[]uint32{4294967295, 7}, true},
		"nss_x: no server\nnadia 1\n":          {[]uint32{1}, true},
		"nadia 1\nnadia 2\n":                   {[]uint32{1}, true},
		"nadia 4002 40":                        {},
		"nadia\n":                              {},
		"nadia2                4002\n":         {},
		"nadia:x:4001:\n":                      {},
		"":                                     {},
		"nadia" + strings.Repeat(" 5", maxGroups+1) + "\n": {slices.Repeat([]uint32{5}, maxGroups), true},
		"usage: nadia 5\n nadia 6\n":                       {},
	} {
		got, found := parseInitgroups(text, "nadia")
		if !slices.Equal(got, want.groups) || found != want.found {
			t.Errorf("%.60q: got %v, %v, want %v", text, got, found, want)
		}
	}
	if got, found := parseInitgroups(`CORP\mary ann         70001 70002`+"\n", `CORP\mary ann`); !found || !slices.Equal(got, []uint32{70001, 70002}) {
		t.Errorf("a name of two words: got %v, %v", got, found)
	}
}

// TestGroups has users in groups of either kind.
func TestGroups(t *testing.T) {
	const group = "sudo:x:27:alice,nadia\n"
	dir := newRoot(t, passwd)
	if err := os.WriteFile(filepath.Join(string(dir), "etc/group"), []byte(group), 0o644); err != nil {
		t.Fatal(err)
	}
	entry := func(name string) string { return name + ":x:4001:4001::/srv/nadia:/bin/sh\n" }
	for _, test := range []struct {
		name   string
		output string
		err    error
		want   []uint32
		errMsg string
		asked  bool
	}{
		{name: "alice", want: []uint32{27}},
		{name: "nadia", output: "nadia                 4002 27\n", want: []uint32{4002, 27}, asked: true},
		{name: "nadia", output: "nadia                \n", asked: true},
		{name: "nadia", output: "what?\n", want: []uint32{27}, asked: true},
		{
			name: "nadia", output: "Unknown database: initgroups\n",
			err: &run.ExitError{Action: "look up groups", Code: 1}, want: []uint32{27}, asked: true,
		},
		{
			name: "nadia", err: &run.ExitError{Action: "look up groups", Code: 2}, want: []uint32{27}, asked: true,
		},
		{
			name: "nadia", output: "nadia 4002\n", asked: true,
			err:    &run.ExitError{Action: "look up groups", Code: -1},
			errMsg: "failed to look up the groups of user 'nadia': child process has terminated abnormally",
		},
		{
			name: "nadia", asked: true, err: context.DeadlineExceeded,
			errMsg: "failed to look up the groups of user 'nadia': context deadline exceeded",
		},
	} {
		recorder := &runtest.Recorder{Reply: func(_ context.Context, c run.Command) ([]byte, error) {
			if c.Args[1] == "passwd" {
				return []byte(entry("nadia")), nil
			}
			return []byte(test.output), test.err
		}}
		a := New(Config{Root: dir, Run: recorder.Run})
		// getent may know him by another name, under which he is in no group.
		u, err := a.lookup(t.Context(), strings.Replace(test.name, "nadia", "nadia@corp", 1))
		if err != nil {
			t.Fatal(err)
		}
		recorder.Take()
		got, err := a.groups(t.Context(), u)
		if !slices.Equal(got, test.want) || text(err) != test.errMsg {
			t.Errorf("%+v: got %v, %v", test, got, err)
		}
		commands := recorder.Take()
		if asked := len(commands) > 0; asked != test.asked {
			t.Errorf("%+v: getent asked: %v", test, asked)
		}
		for _, c := range commands {
			if got, want := strings.Join(c.Args, " "), "getent initgroups -- "+test.name; got != want {
				t.Errorf("ran %q, want %q", got, want)
			}
		}
	}
}
