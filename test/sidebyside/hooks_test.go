//go:build linux

package sidebyside

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/hooks"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/logging"
)

// TestFreezeHook compares what is made of the hook of option -F. No file system
// is frozen for it: none is on the list.
func TestFreezeHook(t *testing.T) {
	for _, script := range []string{
		"exit 0", "exit 3", "echo no; exit 1", "echo fine", "kill -9 $$", "echo so; kill -9 $$", "[ $# = 1 ] && [ $1 = freeze ]",
		"#!/no/such/interpreter", "#!/", "none", "not executable", "a directory",
	} {
		dir := t.TempDir()
		hook := filepath.Join(dir, "hook")
		text := script + "\n"
		if !strings.HasPrefix(script, "#!") {
			text = "#!/bin/sh\n" + text
		}
		var err error
		switch script {
		case "none":
		case "not executable":
			err = os.WriteFile(hook, []byte(text), 0o644)
		case "a directory":
			err = os.Mkdir(hook, 0o755)
		default:
			err = os.WriteFile(hook, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		const request = `{"execute":"guest-fsfreeze-freeze-list","arguments":{"mountpoints":[]}}` + "\n"
		reply := withoutPosition(exchange(t, startC(t, "-F"+hook), []byte(request)))
		want, _, _ := strings.Cut(string(reply), "\n") // the mark's answer follows

		h := hooks.New(hooks.Config{
			Program: hook,
			Run:     run.Run,
			Audit:   func(string, ...any) {},
			Log:     func(logging.Level, string, ...any) {},
		})
		got := `{"return": 0}`
		if err := h.Freeze(t.Context()); err != nil {
			got = fmt.Sprintf(`{"error": {"class": "GenericError", "desc": %q}}`, err)
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", script, got, want)
		}
	}
}
