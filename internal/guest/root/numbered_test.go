package root

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"
)

func TestNumbered(t *testing.T) {
	d := Dir(t.TempDir())
	for _, name := range []string{
		"cpu10", "cpu9", "cpu0", "cpu", "cpufreq", "cpu1x", "cpu-1", "cpu+2", "cpu 3", "cpu04", "xcpu5",
		"cpu18446744073709551615", "cpu18446744073709551616",
	} {
		if err := os.Mkdir(d.Path("/"+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.Numbered("/", "cpu")
	if want := []uint64{0, 9, 10, 1<<64 - 1}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := d.Numbered("/missing", "cpu"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}
