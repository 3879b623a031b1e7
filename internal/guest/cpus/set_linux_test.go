package cpus

import (
	"slices"
	"testing"
)

func TestParseSet(t *testing.T) {
	for text, want := range map[string]set{
		"\n":                       {},
		"0\n":                      {{0, 0}},
		"0-3,8,10-11\n":            {{0, 3}, {8, 8}, {10, 11}},
		"8191\n":                   {{8191, 8191}},
		"0-4294967295\n":           {{0, 1<<32 - 1}},
		"":                         nil,
		"0-3":                      nil, // perhaps the beginning of 0-31
		"0-3,\n":                   nil,
		"3-0\n":                    nil,
		"1,0\n":                    nil,
		"0,0\n":                    nil,
		"0-\n":                     nil,
		"-1\n":                     nil,
		"0 1\n":                    nil,
		"0x1\n":                    nil,
		"0-10:2/4\n":               nil,
		"0\n1\n":                   nil,
		"99999999999999999999\n":   nil,
		"0-99999999999999999999\n": nil,
	} {
		got, ok := parseSet(text)
		if ok != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, ok, want)
		}
	}
}

func TestSetHas(t *testing.T) {
	s, _ := parseSet("1-3,8,10-11\n")
	var got []int64
	for n := range int64(20) {
		if s.has(n) {
			got = append(got, n)
		}
	}
	if want := []int64{1, 2, 3, 8, 10, 11}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if (set{}).has(0) || s.has(-1) {
		t.Error("has what it has not")
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add("0-3,8,10-11\n")
	f.Add("\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseSet(text)
		if !ok && s != nil {
			t.Errorf("%v, and not ok", s)
		}
		for i, r := range s {
			if !s.has(r.first) || !s.has(r.last) || r.last < r.first || i > 0 && r.first <= s[i-1].last {
				t.Errorf("%v", s)
			}
		}
	})
}
