package clock

import "testing"

func TestParseAdjtime(t *testing.T) {
	for text, want := range map[string]adjtime{
		"":                               {},
		"\n\n\n":                         {},
		"0.0 0 0.0\n0\nUTC\n":            {},
		"0.0 0 0.0\n0\nLOCAL\n":          {local: true},
		"0.0 0 0.0\n0\nLOCAL":            {local: true},
		"0.000000 17 0\n17\r\nLOCAL\r\n": {local: true},
		"-0.25 17 0.0\n17\nUTC\n":        {drifts: true},
		"1.5 17 0.0\n17\nLOCAL\nx":       {local: true, drifts: true},
		"LOCAL\n":                        {},
		"0.0 0 0.0\n0\nlocal\n":          {},
		"\xff\x00":                       {},
	} {
		if got := parseAdjtime(text); got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}
