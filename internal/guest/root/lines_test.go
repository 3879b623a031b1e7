package root

import (
	"slices"
	"testing"
)

func TestLines(t *testing.T) {
	for text, want := range map[string][]string{
		"":             nil,
		"cpu0 1 2":     nil,
		"a 1\nb 12":    {"a 1"},
		"a 1\n\nb 1\n": {"a 1", "", "b 1"},
		"\n":           {""},
	} {
		if got := slices.Collect(Lines(text)); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	for range Lines("a\nb\n") {
		break // which must not ask for more
	}
}
