package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// walk returns what getopt makes of a command line: letter, then argument in
// brackets if there is one, and the texts of the mistakes.
func walk(args []string) (got []string, mistakes []string) {
	g := getopt{options: options, args: args}
	for {
		o, arg, given, ok, err := g.next()
		switch {
		case !ok:
			return got, mistakes
		case err != nil:
			mistakes = append(mistakes, err.Error())
		case given:
			got = append(got, string(o.letter)+"["+arg+"]")
		default:
			got = append(got, string(o.letter))
		}
	}
}

func TestGetopt(t *testing.T) {
	t.Parallel()
	tests := []struct {
		line     string // arguments separated by blanks
		want     string
		mistakes string
	}{
		{line: "", want: ""},
		{line: "-v", want: "v"},
		{line: "-vDr", want: "v D r"},
		{line: "-vmfoo", want: "v m[foo]"},
		{line: "-vm foo", want: "v m[foo]"},
		{line: "-m -v", want: "m[-v]"},
		{line: "-m -- -v", want: "m[--] v"},
		{line: "--method=foo", want: "m[foo]"},
		{line: "--method foo", want: "m[foo]"},
		{line: "--method=", want: "m[]"},
		{line: "--method=a=b", want: "m[a=b]"},
		{line: "--meth=foo", want: "m[foo]"},
		{line: "--daemon", want: "d"},
		{line: "-F", want: "F"},
		{line: "-F /x", want: "F"},
		{line: "-F/x", want: "F[/x]"},
		{line: "-vF/x", want: "v F[/x]"},
		{line: "--fsfreeze-hook /x", want: "F"},
		{line: "--fsfreeze-hook=/x", want: "F[/x]"},
		{line: "--fs=", want: "F[]"},
		{line: "--blacklist x", want: "b[x]"},
		{line: "--b x", want: "b[x]"},
		{line: "--bl=x", want: "b[x]"},
		{line: "x -v y - -D", want: "v D"},
		{line: "-v -- -D", want: "v"},

		{line: "-x", mistakes: "invalid option -- 'x'"},
		{line: "-xv", want: "v", mistakes: "invalid option -- 'x'"},
		{line: "-v=x", want: "v", mistakes: "invalid option -- '='; invalid option -- 'x'"},
		{line: "--foo", mistakes: "unrecognized option '--foo'"},
		{line: "--foo=x -v", want: "v", mistakes: "unrecognized option '--foo=x'"},
		{line: "-m", mistakes: "option requires an argument -- 'm'"},
		{line: "--meth", mistakes: "option '--method' requires an argument"},
		{line: "--b", mistakes: "option '--block-rpcs' requires an argument"},
		{line: "--daemonize=3", mistakes: "option '--daemonize' doesn't allow an argument"},
		{line: "--verb=", mistakes: "option '--verbose' doesn't allow an argument"},
		{line: "--ver", mistakes: "option '--ver' is ambiguous; possibilities: '--version' '--verbose'"},
		{line: "--p=3", mistakes: "option '--p=3' is ambiguous; possibilities: '--pidfile' '--path'"},
	}
	for _, tt := range tests {
		got, mistakes := walk(strings.Fields(tt.line))
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%q: got %q, want %q", tt.line, s, tt.want)
		}
		if s := strings.Join(mistakes, "; "); s != tt.mistakes {
			t.Errorf("%q: mistakes %q, want %q", tt.line, s, tt.mistakes)
		}
	}
}

func TestAmbiguousListsVisibleOptions(t *testing.T) {
	t.Parallel()
	g := getopt{options: options, args: []string{"--=x"}}
	_, _, _, _, err := g.next()
	var usage *UsageError
	if !errors.As(err, &usage) {
		t.Fatalf("err = %v, want a *UsageError", err)
	}
	if n := strings.Count(err.Error(), " '--") - 1; n < 15 {
		t.Errorf("%d possibilities in %q, want all of them", n, err)
	}
	if strings.Contains(err.Error(), "blacklist") {
		t.Errorf("%q proposes a deprecated option", err)
	}
}

// FuzzGetopt checks that every walk ends and that no text is made up: letters
// come from the table and arguments from the command line.
func FuzzGetopt(f *testing.F) {
	f.Add("-vDm\x00foo\x00--path=/x\x00-F/h\x00--\x00-z")
	f.Add("--b\x00a,b\x00--fs\x00-")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		g := getopt{options: options, args: slices.Clone(args)}
		for steps := 0; ; steps++ {
			if steps > len(line) {
				t.Fatalf("%q: more options than bytes", args)
			}
			o, arg, given, ok, err := g.next()
			if !ok {
				return
			}
			if err != nil {
				continue
			}
			if !slices.Contains(options, o) {
				t.Errorf("%q: option %+v is not in the table", args, o)
			}
			if given && !strings.Contains(line, arg) {
				t.Errorf("%q: argument %q is not in the command line", args, arg)
			}
			if given != (o.arg == requiredArgument) && o.arg != optionalArgument {
				t.Errorf("%q: -%c: argument given: %v", args, o.letter, given)
			}
		}
	})
}
