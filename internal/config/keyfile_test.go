package config

import (
	"strings"
	"testing"
)

func TestKeyFileText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		data, want string
	}{
		{"[g]\nk=a\n", "a"},
		{"[g]\nk=a", "a"},
		{"[g]\nk=\n", ""},
		{"\n# c\n \t# c\n\x00x\n[g]\nk=a\n#\n", "a"},
		{" [g] \t\n\t k \t=\f a\n", "a"},
		{"[g]\nk=  a  b  \n", "a  b  "},
		{"[g]\nk=a=b#c\n", "a=b#c"},
		{"[g]\nk==a\n", "=a"},
		{"[g]\r\nk=a\r\n", "a"},
		{"[g]\nk=a\r", "a\r"},
		{"[g]\nk=a\r\r\n", "a\r"},
		{"[g]\nk=a\x00b\n", "a"},
		{"[g]\nk=a\nk=b\n[x]\nk=c\n[g]\ny=1\n", "b"},
		{"[g]\nk[de]=b\nk=a\nk[]=c\n", "a"},
		{"[g]\nk=\\s\\ta\\n\\r\\\\s\n", " \ta\n\r\\s"},
		{"[g]\nk=ü\nz=\\q\nü ö=\xff\n", "ü"},
	}
	for _, tt := range tests {
		f, err := parseKeyFile(tt.data)
		if err != nil {
			t.Errorf("%q: %v", tt.data, err)
			continue
		}
		got, ok, err := f.text("g", "k")
		if got != tt.want || !ok || err != nil {
			t.Errorf("%q: got %q, %v, %v, want %q", tt.data, got, ok, err, tt.want)
		}
	}
}

func TestKeyFileRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		data, want string
	}{
		{"x", `line 1: "x" is not a key-value pair, group, or comment`},
		{"[g]\n  x \n", `line 2: "  x " is not a key-value pair`},
		{"[g]\n =a\n", `line 2: " =a" is not a key-value pair`},
		{"[g\n", `line 1: "[g" is not a key-value pair`},
		{"[g]x\n", `line 1: "[g]x" is not a key-value pair`},
		{"[g]#c\n", "line 1: "},
		{"[g]\f\n", "line 1: "},
		{"[a]b]\n", "line 1: "},
		{"[g\x00]\n", "line 1: "},
		{"\ufeff[g]\n", "line 1: "},
		{"\n\na=b\n[g]\n", "line 3: the file does not start with a group"},
		{"[]\n", `line 1: invalid group name ""`},
		{"[a[b]\n", `line 1: invalid group name "a[b"`},
		{"[a\tb]\n", `line 1: invalid group name "a\tb"`},
		{"[a\x7fb]\n", "line 1: invalid group name"},
		{"[g]\nk [de]=a\n", `line 2: invalid key name "k [de]"`},
		{"[g]\nk[d e]=a\n", "line 2: invalid key name"},
		{"[g]\nk[de=a\n", "line 2: invalid key name"},
		{"[g]\nk]=a\n", "line 2: invalid key name"},
		{"[g]\nk[de]x=a\n", "line 2: invalid key name"},
		{"[g]\n[k=a\n", "line 2: invalid key name"},
		{"[g]\nx[]]=a\n", "line 2: invalid key name"},
	}
	for _, tt := range tests {
		_, err := parseKeyFile(tt.data)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: err = %v, want %q", tt.data, err, tt.want)
		}
	}
	for _, raw := range []string{`\`, `a\`, `a\x`, `a\;b`, "a\xffb"} {
		f, err := parseKeyFile("[g]\nk=" + raw + "\n")
		if err != nil {
			t.Errorf("%q: %v, want an error only when the value is asked for", raw, err)
			continue
		}
		if _, _, err = f.text("g", "k"); err == nil {
			t.Errorf("value %q is accepted", raw)
		}
	}
}

func TestKeyFileBoolean(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"true": "true", "1": "true", "false": "false", "0": "false", "  true \t\r\f": "true",
		"": "error", "yes": "error", "TRUE": "error", "01": "error", "2": "error", "true x": "error",
		`\strue`: "error", "true;": "error", "true\v": "error", "true\u00a0": "error", `maybe\q`: "error",
	} {
		f, err := parseKeyFile("[g]\nk=" + raw + "\n")
		if err != nil {
			t.Fatal(err)
		}
		got := "false"
		value, ok, err := f.boolean("g", "k")
		switch {
		case err != nil:
			got = "error"
		case value:
			got = "true"
		}
		if got != want || !ok {
			t.Errorf("%q: got %s, %v, want %s", raw, got, ok, want)
		}
	}
	if _, ok, err := (&keyFile{}).boolean("g", "k"); ok || err != nil {
		t.Errorf("absent key: got %v, %v", ok, err)
	}
}

// FuzzKeyFile checks that any text that a value can hold survives being
// written and read, and that no file makes the parser fail otherwise than with
// an error that names a line.
func FuzzKeyFile(f *testing.F) {
	f.Add("[g]\nk=a\n")
	f.Add(" \t\r\n\\a b")
	f.Add("[a]\nb[c]=\\s\r\n#\x00")
	f.Fuzz(func(t *testing.T, data string) {
		if _, err := parseKeyFile(data); err != nil && !strings.HasPrefix(err.Error(), "line ") {
			t.Errorf("%q: %v", data, err)
		}
		value := strings.ToValidUTF8(strings.ReplaceAll(data, "\x00", ""), "")
		// Glib does not escape a form feed, which a reader drops at the start.
		value = strings.TrimLeft(value, "\f")
		if strings.TrimLeft(value, " \t\r\n") != strings.TrimLeft(value, blanks) {
			return
		}
		file, err := parseKeyFile("[g]\n" + string(appendText(nil, "k", value)))
		if err != nil {
			t.Fatalf("%q: %v", value, err)
		}
		if got, _, err := file.text("g", "k"); got != value || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, value)
		}
	})
}
