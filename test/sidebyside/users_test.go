//go:build linux

package sidebyside

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/guest/users"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/qga"
)

// cAgentWith is the C agent in a view of its own of the file system, which
// script makes. Nobody else sees it.
func cAgentWith(t *testing.T, script string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	program := filepath.Join(t.TempDir(), "agent")
	text := fmt.Sprintf("#!/bin/sh\nset -e\n[ -n \"$APART\" ] || APART=1 exec unshare --mount \"$0\" \"$@\"\n%s\nexec %s \"$@\"\n", script, cAgent(t))
	if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return program
}

// startWith serves an agent with the given commands.
func startWith(t *testing.T, handlers []agent.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ours.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	a := agent.New(logging.New(logging.Discard, logging.Discard, false), nil, handlers...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Listen(ctx, acceptor{l})
	}()
	t.Cleanup(func() { cancel(); l.Close(); <-done })
	return path
}

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
		c := start(t, cAgentWith(t, fmt.Sprintf("mount --bind %s/run /run", dir)))
		ours := startWith(t, users.Commands(users.Users{Root: root.Dir(dir)}))
		want, got := ask[[]qga.User](t, c, "guest-get-users"), ask[[]qga.User](t, ours, "guest-get-users")
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
		if len(want) == 0 != (records == nil) {
			t.Errorf("%s: the C agent has not seen the file: %v", name, want)
		}
	}
}
