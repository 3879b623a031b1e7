package mounts

import (
	"slices"
	"strings"
	"testing"
)

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"":                "",
		"/plain":          "/plain",
		`/a\040b\011\012`: "/a b\t\n",
		`\134\043`:        `\#`,
		`\303\244`:        "ä",
		`/x\777y\0`:       `/x\777y\0`, // none of the kernel's
		`\08x\`:           `\08x\`,
		`\+12`:            `\+12`,
		`\134040`:         `\040`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("27 1 254:0 / /a\\040b rw - ext4 /dev/vda rw\n")
	f.Add("/dev/vda / ext4 rw 0 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, list := range [][]Mount{slices.Collect(parseMountinfo(text)), slices.Collect(parseMounts(text))} {
			if len(list) > strings.Count(text, "\n")+1 {
				t.Errorf("%d mounts of %q", len(list), text)
			}
			for _, m := range list {
				if m.Point == "" || m.Type == "" || len(m.Point)+len(m.Type)+len(m.Source) >= len(text) {
					t.Errorf("%q: got %+v", text, m)
				}
			}
		}
	})
}
