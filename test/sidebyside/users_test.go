//go:build linux

package sidebyside

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/qga"
)

// TestUsers compares what is made of a utmp file.
func TestUsers(t *testing.T) {
	record := func(kind uint16, name string, seconds, micros uint32) []byte {
		b := make([]byte, 384)
		binary.NativeEndian.PutUint16(b, kind)
		copy(b[44:76], name)
		binary.NativeEndian.PutUint32(b[340:], seconds)
		binary.NativeEndian.PutUint32(b[344:], micros)
		return b
	}
	program := ourAgent(t)
	for name, records := range map[string][][]byte{
		"nobody": nil,
		"many": {
			record(2, "reboot", 1500000000, 0),
			record(7, "root", 1700000000, 250000),
			record(7, "bob", 1700000100, 0),
			record(7, "root", 1700000300, 0),
			record(7, "bob", 1600000000, 500000),
			record(8, "gone", 1600000000, 500000),
			record(7, strings.Repeat("a", 32), 1700000200, 123456),
			record(7, "one", 1700000200, 999999),
		},
	} {
		dir := t.TempDir()
		for _, sub := range []string{"run", "var"} {
			if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/run", filepath.Join(dir, "var/run")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "run/utmp"), bytes.Join(records, nil), 0o644); err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("mount --bind %s/run /run", dir)
		c, ours := start(t, apart(t, cAgent(t), script)), start(t, apart(t, program, script))
		want, got := ask[[]qga.User](t, c, "guest-get-users"), ask[[]qga.User](t, ours, "guest-get-users")
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
		if len(want) == 0 != (records == nil) {
			t.Errorf("%s: the C agent has not seen the file: %v", name, want)
		}
	}
}
