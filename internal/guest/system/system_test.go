//go:build unix

package system

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/qga"
)

func tree(t *testing.T, files map[string]string) System {
	t.Helper()
	return System{Root: guesttest.Tree(t, files)}
}

func TestLocation(t *testing.T) {
	berlin := string(zoneFile("CET-1CEST,M3.5.0,M10.5.0/3"))
	ruleless := zoneFile("")
	binary.BigEndian.PutUint32(ruleless[len(ruleless)-len("\n\nUTC\x00")-6:], 3600) // the offset of its one type
	s := tree(t, map[string]string{
		"etc/localtime":                       string(zoneFile("IST-5:30")),
		"usr/share/zoneinfo/Europe/Berlin":    berlin,
		"usr/share/zoneinfo/America/New_York": string(zoneFile("EST5EDT,M3.2.0,M11.1.0")),
		"usr/share/zoneinfo/UTC":              string(zoneFile("UTC0")),
		"usr/share/zoneinfo/broken":           "TZif2",
		"usr/share/zoneinfo/ruleless":         string(ruleless),
		"usr/share/zoneinfo/cut-off":          string(ruleless[:len(ruleless)-2]),
		"opt/zone":                            berlin,
	})
	for _, test := range []struct {
		tz             string
		winter, summer string // abbreviation and offset in seconds
	}{
		{"unset", "IST 19800", "IST 19800"},
		{"", "UTC 0", "UTC 0"},
		{":", "UTC 0", "UTC 0"},
		{"UTC", "UTC 0", "UTC 0"},
		{"Europe/Berlin", "CET 3600", "CEST 7200"},
		{":Europe/Berlin", "CET 3600", "CEST 7200"},
		{"/opt/zone", "CET 3600", "CEST 7200"},
		{":/opt/zone", "CET 3600", "CEST 7200"},
		{"America/New_York", "EST -18000", "EDT -14400"},
		{"XYZ-3:30", "XYZ 12600", "XYZ 12600"},
		{"<+0330>-3:30", "+0330 12600", "+0330 12600"},
		{"ABC-14:30:15", "ABC 52215", "ABC 52215"},
		{"EST5EDT", "EST -18000", "EDT -14400"},
		{"AAA-10BBB,M10.1.0,M4.1.0/3", "BBB 39600", "AAA 36000"}, // the southern summer
		{":XYZ-3:30", "UTC 0", "UTC 0"},
		{"Bogus/Zone", "UTC 0", "UTC 0"},
		{"Europe", "UTC 0", "UTC 0"},
		{"/nope", "UTC 0", "UTC 0"},
		{"broken", "UTC 0", "UTC 0"},
		{"ruleless", "UTC 3600", "UTC 3600"},
		{"cut-off", "UTC 0", "UTC 0"},
		{"ABC", "UTC 0", "UTC 0"},
		{"A5", "UTC 0", "UTC 0"},
		{"<ab", "UTC 0", "UTC 0"},
		{"ABC25", "ABC -90000", "ABC -90000"}, // POSIX ends at 24 hours, RFC 9636 at 167
		{"XYZ-3\nEST5", "UTC 0", "UTC 0"},
	} {
		loc := s.location(test.tz, test.tz != "unset")
		for month, want := range map[time.Month]string{time.January: test.winter, time.July: test.summer} {
			zone, offset := time.Date(2026, month, 15, 12, 0, 0, 0, time.UTC).In(loc).Zone()
			if got := fmt.Sprintf("%s %d", zone, offset); got != want {
				t.Errorf("TZ %q in %v: got %s, want %s", test.tz, month, got, want)
			}
		}
	}
	if zone, offset := time.Now().In(System{Root: "/nonexistent"}.location("", false)).Zone(); zone != "UTC" || offset != 0 {
		t.Errorf("without any file: got %s %d", zone, offset)
	}
}

func TestTimezone(t *testing.T) {
	t.Setenv("TZ", "XYZ-3:30")
	r, err := System{}.timezone(t.Context(), qga.Empty{})
	if err != nil || r.Zone == nil || *r.Zone != "XYZ" || r.Offset != 12600 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// The first group is what the C agent makes of these texts; in the second one
// it drops everything or takes the quotes for text.
func TestParseOSRelease(t *testing.T) {
	for _, test := range []struct {
		text string
		want map[string]string
	}{
		{"", nil},
		{
			"# c\n\nID=foo # trailing\nNAME=\"a\" junk\nVERSION_ID=\"1.2\" # x\n",
			map[string]string{"ID": "foo", "NAME": "a", "VERSION_ID": "1.2"},
		},
		{
			"VARIANT=\"Unit test \\\"\\'\\$\\`\\\\ and \\\\\\\\ etc.\"\n",
			map[string]string{"VARIANT": "Unit test \"'$`\\ and \\\\ etc."},
		},
		{"NAME=\"a\\tb\"\n", map[string]string{"NAME": `a\tb`}},
		{
			"VERSION=a b c\nVARIANT=q;r\nVERSION_ID=\"\"\nVARIANT_ID=\n",
			map[string]string{"VERSION": "a", "VARIANT": "q", "VERSION_ID": "", "VARIANT_ID": ""},
		},
		{"ID=one\nID=two\nexport NAME=x\n", map[string]string{"ID": "two", "export NAME": "x"}},
		{"ID=foo\nNAME=\"Café 😀\"\n", map[string]string{"ID": "foo", "NAME": "Café 😀"}},
		{"NAME = x\n  ID=y\n", map[string]string{"NAME": "x", "ID": "y"}},
		{"ID=last", map[string]string{"ID": "last"}},
		{"ID=a=b\n", map[string]string{"ID": "a=b"}},

		{"ID=foo\nthis is not valid\nNAME=bar\n", map[string]string{"ID": "foo", "NAME": "bar"}},
		{"ID='single q'\nNAME='x \"$\\'\n", map[string]string{"ID": "single q", "NAME": `x "$\`}},
		{"NAME=\"a 'b'\"'c d'e\\ f\n", map[string]string{"NAME": "a 'b'c de f"}},
		{"PRETTY_NAME=\"unterminated\nID=x\n", map[string]string{"PRETTY_NAME": "unterminated", "ID": "x"}},
		{"NAME=\"back\\\nID=x\n", map[string]string{"NAME": `back\`, "ID": "x"}},
		{"ID=foo\nNAME=\"Caf\xe9\"\n", map[string]string{"ID": "foo", "NAME": "Caf\xe9"}},
		{"ID=dos\r\nNAME=\"d o s\"\r\n", map[string]string{"ID": "dos", "NAME": "d o s"}},
	} {
		got := map[string]string{}
		parseOSRelease(test.text, func(k, v string) { got[k] = v })
		if !maps.Equal(got, test.want) {
			t.Errorf("%q:\ngot  %q\nwant %q", test.text, got, test.want)
		}
	}
}

func FuzzParseOSRelease(f *testing.F) {
	f.Add("ID=foo\nNAME=\"a \\\"b\\\"\"\nX='y\n")
	f.Fuzz(func(t *testing.T, text string) {
		parseOSRelease(text, func(k, v string) {
			if strings.ContainsAny(k+v, "\n") {
				t.Errorf("%q: %q=%q is more than a line", text, k, v)
			}
			if len(k)+len(v) >= len(text) {
				t.Errorf("%q: %q=%q is longer than its text", text, k, v)
			}
		})
	})
}

func osInfo(t *testing.T, s System) map[string]string {
	t.Helper()
	info, err := s.osInfo(t.Context(), qga.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]string
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOSInfo(t *testing.T) {
	uname := func(option string) string {
		out, err := exec.Command("uname", option).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.TrimSpace(out))
	}
	kernel := map[string]string{
		"kernel-release": uname("-r"), "kernel-version": uname("-v"), "machine": uname("-m"),
	}
	const etc, usr = "etc/os-release", "usr/lib/os-release"
	for _, test := range []struct {
		name  string
		files map[string]string
		env   string
		want  map[string]string
	}{
		{"no file", nil, "", nil},
		{"etc first", map[string]string{etc: "ID=etc\n", usr: "ID=usr\nNAME=usr\n"}, "", map[string]string{"id": "etc"}},
		{"usr else", map[string]string{usr: "ID=usr\n"}, "", map[string]string{"id": "usr"}},
		{"empty one counts", map[string]string{etc: "", usr: "ID=usr\n"}, "", nil},
		{"environment", map[string]string{etc: "ID=etc\n", "opt/release": "ID=opt\n"}, "/opt/release", map[string]string{"id": "opt"}},
		{"environment only", map[string]string{etc: "ID=etc\n"}, "/opt/release", nil},
		{
			"all",
			map[string]string{etc: "ID=a\nNAME=b\nPRETTY_NAME=c\nVERSION=d\nVERSION_ID=e\nVARIANT=f\nVARIANT_ID=\nHOME_URL=g\n"},
			"",
			map[string]string{"id": "a", "name": "b", "pretty-name": "c", "version": "d", "version-id": "e", "variant": "f", "variant-id": ""},
		},
	} {
		t.Setenv("QGA_OS_RELEASE", test.env)
		if test.env == "" {
			os.Unsetenv("QGA_OS_RELEASE")
		}
		want := maps.Clone(kernel)
		maps.Copy(want, test.want)
		if got := osInfo(t, tree(t, test.files)); !maps.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", test.name, got, want)
		}
	}
}

func TestOSInfoCaptured(t *testing.T) {
	for _, name := range []string{"virtio", "no-udev"} {
		guest := guesttest.Captured(t, name)
		var want map[string]string
		guest.Answer("guest-get-osinfo", &want)
		got := osInfo(t, System{Root: guest.Root})
		for _, m := range []map[string]string{got, want} {
			// The kernel is that of the machine, and not in a file.
			for _, key := range []string{"kernel-release", "kernel-version", "machine"} {
				if m[key] == "" {
					t.Errorf("%s: no %s", name, key)
				}
				delete(m, key)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestHostName(t *testing.T) {
	want, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	got, err := System{}.hostName(t.Context(), qga.Empty{})
	if err != nil || got.HostName != want {
		t.Errorf("got %q, %v, want %q", got.HostName, err, want)
	}
}
