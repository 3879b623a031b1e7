package accounts

import (
	"slices"
	"testing"
)

func TestCheckKeys(t *testing.T) {
	for key, valid := range map[string]bool{
		"ssh-rsa AAA a": true,
		`command="echo \"#\"",no-pty ssh-ed25519 AAAA x@y`: true,
		"":                 true,
		" # no comment":    true,
		"# comment":        false,
		"#":                false,
		"ssh-rsa AAA\na":   false,
		"ssh-rsa AAA a\n":  false,
		"\nssh-rsa AAA a":  false,
		"not a key at all": true,
	} {
		err := checkKeys([]string{"ssh-rsa first", key})
		want := ""
		if !valid {
			want = "invalid OpenSSH public key: '" + key + "'"
		}
		if text(err) != want {
			t.Errorf("%q: got %v, want %q", key, err, want)
		}
	}
}

func TestParseKeys(t *testing.T) {
	for file, want := range map[string][]string{
		"":                             {},
		"\n\n":                         {},
		"a\nb\n":                       {"b", "a"},
		"a\nb":                         {"b", "a"},
		"# c\n  a x \n\n\t#d\n\tb\r\n": {"b", "a x"},
	} {
		if got := parseKeys(file); got == nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", file, got, want)
		}
	}
}

func TestEditKeys(t *testing.T) {
	for _, test := range []struct {
		file        string
		add, remove []string
		want        string
	}{
		{"", []string{"a", "b", "a"}, nil, "a\nb\n"},
		{"a\n", []string{"a", "b"}, nil, "a\nb\n"},
		{"a", []string{"b"}, nil, "a\nb\n"},
		{"a\n\n\n", []string{"b"}, nil, "a\nb\n"},
		{"# head\n\na x\n", []string{"a"}, nil, "# head\n\na x\na\n"},
		{" a\n", []string{"a"}, nil, " a\na\n"},
		{"a\n", []string{""}, nil, "a\n"},
		{"a\n", nil, nil, "a\n"},
		{"", nil, nil, ""},
		{"a\nb\na\n", nil, []string{"a", "z"}, "b\n"},
		{"# head\na x\n\nb", nil, []string{"a", "b"}, "# head\na x\n\n"},
		{"a\n", nil, []string{"a"}, ""},
		{"a\n\nb\n", nil, []string{""}, "a\nb\n"},
	} {
		got := joinLines(removeKeys(addKeys(splitLines(test.file), test.add), test.remove))
		if got != test.want {
			t.Errorf("%q + %q - %q: got %q, want %q", test.file, test.add, test.remove, got, test.want)
		}
	}
}

// What was added is there once, what was removed is not, and the rest has not
// moved.
func FuzzEditKeys(f *testing.F) {
	f.Add("# c\nssh-rsa AAA a\n\nssh-rsa BBB b", "ssh-rsa CCC c")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, file, key string) {
		if checkKeys([]string{key}) != nil {
			return
		}
		before := splitLines(file)
		added := addKeys(slices.Clone(before), []string{key, key})
		if !slices.Equal(added[:len(before)], before) {
			t.Errorf("%q + %q: got %q", file, key, added)
		}
		if key != "" && !slices.Contains(added, key) {
			t.Errorf("%q + %q: it is not in %q", file, key, added)
		}
		if again := addKeys(splitLines(joinLines(added)), []string{key}); joinLines(again) != joinLines(splitLines(joinLines(added))) {
			t.Errorf("%q + %q: twice gives %q", file, key, again)
		}
		removed := removeKeys(added, []string{key})
		want := slices.DeleteFunc(before, func(line string) bool { return line == key })
		if !slices.Equal(removed, want) {
			t.Errorf("%q - %q: got %q, want %q", file, key, removed, want)
		}
	})
}
