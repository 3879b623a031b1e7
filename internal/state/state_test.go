package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func mustOpen(t testing.TB, dir string) *State {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func next(t *testing.T, s *State) int64 {
	t.Helper()
	n, err := s.NextHandle()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func contents(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "qga.state"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestNewDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if got, want := contents(t, dir), "[global]\nfd_counter=1000\n"; got != want {
		t.Errorf("contents %q, want %q", got, want)
	}
	if got := next(t, s); got != 1000 {
		t.Errorf("first handle %d, want 1000", got)
	}
	if got, want := contents(t, dir), "[global]\nfd_counter=1001\n"; got != want {
		t.Errorf("contents %q, want %q", got, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, %v, want one file", entries, err)
	}
	if got := next(t, mustOpen(t, dir)); got != 1001 {
		t.Errorf("after a restart: handle %d, want 1001", got)
	}
}

func TestContentsOfOthers(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]int64{
		"":                                                 1000,
		"[global]\nfd_counter=1234\n":                      1234,
		"[global]\nfd_counter=9999\n":                      9999,
		"[global]\r\n fd_counter = 1234 \r\n":              1234,
		"[other]\nfd_counter=5000\n":                       1000,
		"[global]\nother=5000\n":                           1000,
		"[global]\nfd_counter=999\n":                       1000,
		"[global]\nfd_counter=0\n":                         1000,
		"[global]\nfd_counter=-5\n":                        1000,
		"[global]\nfd_counter=12x\n":                       1000,
		"[global]\nfd_counter=99999999999999999999\n":      1000,
		"not a key file":                                   1000,
		"[global]\nfd_counter=1234\n[x]\nlong=" + longer(): 1234,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "qga.state"), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, dir)
		if got := next(t, s); got != want {
			t.Errorf("%q: handle %d, want %d", data, got, want)
		}
		if got := next(t, mustOpen(t, dir)); got != want+1 {
			t.Errorf("%q: handle after a restart %d, want %d", data, got, want+1)
		}
	}
}

func longer() string { return strings.Repeat("x", 300) + "\n" }

func TestRemovedFileIsMadeAgain(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not remove open files")
	}
	for name, spoil := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			other := path + ".other"
			if err := os.WriteFile(other, []byte("[global]\nfd_counter=5\n"), 0o600); err != nil {
				return err
			}
			return os.Rename(other, path)
		},
	} {
		dir := t.TempDir()
		s := mustOpen(t, dir)
		next(t, s)
		if err := spoil(s.path); err != nil {
			t.Fatal(err)
		}
		if got := next(t, s); got != 1001 {
			t.Errorf("%s: handle %d, want 1001", name, got)
		}
		if got, want := contents(t, dir), "[global]\nfd_counter=1002\n"; got != want {
			t.Errorf("%s: contents %q, want %q", name, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	if _, err := Open(filepath.Join(t.TempDir(), "missing")); err == nil ||
		!strings.HasPrefix(err.Error(), "failed to write persistent state to ") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}

	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "qga.state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.HasPrefix(err.Error(), "error loading persistent state from path: ") {
		t.Errorf("file is a directory: %v", err)
	}
}

func TestFailureToSaveUsesUpNoHandle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	good := s.file
	broken, err := os.Open(s.path) // cannot be written
	if err != nil {
		t.Fatal(err)
	}
	defer broken.Close()
	s.file = broken
	_, err = s.NextHandle()
	if !errors.Is(err, ErrCommit) || err.Error() != "failed to commit persistent state to disk" {
		t.Errorf("got %v", err)
	}
	s.file = good
	if got := next(t, s); got != 1000 {
		t.Errorf("handle %d, want 1000", got)
	}
}

func TestConcurrentHandlesDiffer(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, t.TempDir())
	const workers, each = 8, 100
	var mu sync.Mutex
	seen := map[int64]bool{}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				n, err := s.NextHandle()
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != workers*each || !seen[1000+workers*each-1] {
		t.Errorf("%d different handles, want %d without a gap", len(seen), workers*each)
	}
}

func TestFrozen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, want := range []bool{false, true, true, false, false} {
		if err := SetFrozen(dir, want); err != nil {
			t.Fatal(err)
		}
		if got, err := Frozen(dir); got != want || err != nil {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	if err := SetFrozen(dir, true); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "qga.state.isfrozen"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != 0 || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("marker of size %d, mode %v", info.Size(), info.Mode())
	}

	for _, absent := range []string{filepath.Join(dir, "missing"), MarkerPath(dir)} {
		if got, err := Frozen(absent); got || err != nil {
			t.Errorf("%s: got %v, %v, want thawed", absent, got, err)
		}
	}
	if _, err := Frozen(strings.Repeat("x", 5000)); err == nil {
		t.Error("a name that is too long: no error")
	}
}

func BenchmarkNextHandle(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "state")
	if err != nil {
		dir = b.TempDir()
	}
	defer os.RemoveAll(dir)
	s := mustOpen(b, dir)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.NextHandle(); err != nil {
			b.Fatal(err)
		}
	}
}
