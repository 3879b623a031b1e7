package filesystems

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/disks/diskstest"
	"github.com/bellhop-vm/bellhop/qga"
)

// newTestTrimmer returns a trimmer of file systems on /a, /b and /c, mounted in
// this order, for which fitrim answers.
func newTestTrimmer(t *testing.T, fitrim func(point string, r *fstrimRange) error) *trimmer {
	t.Helper()
	tree := diskstest.New(t)
	info := ""
	for i, point := range []string{"/a", "/b", "/c"} {
		tree.Dir(point)
		info += fmt.Sprintf("3%d 27 254:%d / %s rw - ext4 /dev/vd%c rw\n", i, 16*i, point, 'a'+i)
	}
	tree.File("/proc/self/mountinfo", info)
	trimmer := newTrimmer(System{Root: tree.Root})
	trimmer.fitrim = func(f *os.File, r *fstrimRange) error { return fitrim("/"+filepath.Base(f.Name()), r) }
	return trimmer
}

// fstrim returns the outcome as text.
func fstrim(t *testing.T, c *trimmer, args qga.FSTrimArgs) string {
	t.Helper()
	result, err := c.fstrim(t.Context(), args)
	if err != nil {
		t.Fatal(err)
	}
	return text(t, result)
}

func TestTrim(t *testing.T) {
	var ranges []fstrimRange
	c := newTestTrimmer(t, func(point string, r *fstrimRange) error {
		ranges = append(ranges, *r)
		r.length, r.minimum = uint64(len(ranges))<<20, max(r.minimum, 512)
		return nil
	})
	audited := 0
	c.audit = func(format string, _ ...any) {
		if format == "guest-fstrim called" {
			audited++
		}
	}
	const want = `{"paths":[{"path":"/c","trimmed":3145728,"minimum":512},` +
		`{"path":"/b","trimmed":2097152,"minimum":512},{"path":"/a","trimmed":1048576,"minimum":512}]}`
	if got := fstrim(t, c, qga.FSTrimArgs{}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	fstrim(t, c, qga.FSTrimArgs{Minimum: new(int64(1 << 20))})
	fstrim(t, c, qga.FSTrimArgs{Minimum: new(int64(-1))})
	for i, minimum := range []uint64{0, 0, 0, 1 << 20, 1 << 20, 1 << 20, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1} {
		if want := (fstrimRange{0, 1<<64 - 1, minimum}); ranges[i] != want {
			t.Errorf("%d: trimmed %+v, want %+v", i, ranges[i], want)
		}
	}
	if audited != 3 {
		t.Errorf("noted %d times, want 3", audited)
	}
}

func TestTrimErrors(t *testing.T) {
	c := newTestTrimmer(t, func(point string, _ *fstrimRange) error {
		switch point {
		case "/a":
			return unix.ENOTTY
		case "/b":
			return unix.EOPNOTSUPP
		}
		return unix.EROFS
	})
	const want = `{"paths":[{"path":"/c","error":"failed to trim: Read-only file system"},` +
		`{"path":"/b","error":"trim not supported"},{"path":"/a","error":"trim not supported"}]}`
	if got := fstrim(t, c, qga.FSTrimArgs{}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}

	c = newTestTrimmer(t, func(string, *fstrimRange) error { return nil })
	for _, name := range []string{"/a", "/b", "/c"} {
		if err := os.Remove(c.root.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	const gone = `{"paths":[{"path":"/c","error":"failed to open: No such file or directory"},` +
		`{"path":"/b","error":"failed to open: No such file or directory"},{"path":"/a","error":"failed to open: No such file or directory"}]}`
	if got := fstrim(t, c, qga.FSTrimArgs{}); got != gone {
		t.Errorf("got %s, want %s", got, gone)
	}

	if err := os.RemoveAll(c.root.Path("/proc")); err != nil {
		t.Fatal(err)
	}
	_, err := c.fstrim(t.Context(), qga.FSTrimArgs{})
	if want := "failed to open mtab file: '/proc/self/mounts'"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A mount that cannot even be opened must not keep the others from being trimmed.
func TestTrimDeadMount(t *testing.T) {
	c := newTestTrimmer(t, func(string, *fstrimRange) error { return nil })
	synctest.Test(t, func(t *testing.T) {
		dead := make(chan struct{})
		open := c.open
		c.open = func(path string) (*os.File, error) {
			if filepath.Base(path) == "b" {
				<-dead
			}
			return open(path)
		}
		const want = `{"paths":[{"path":"/c","trimmed":-1,"minimum":0},` +
			`{"path":"/b","error":"failed to open: system call does not return"},{"path":"/a","trimmed":-1,"minimum":0}]}`
		for _, limit := range []time.Duration{patience, 0} {
			began := time.Now()
			if got := fstrim(t, c, qga.FSTrimArgs{}); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if took := time.Since(began); took != limit {
				t.Errorf("took %v, want %v", took, limit)
			}
		}
		close(dead)
	})
}

// The reply does not wait for a large disk, but its trimming goes on, and so do
// the others. Asking again tells how it went.
func TestTrimSlowDisk(t *testing.T) {
	calls := make(map[string]int)
	c := newTestTrimmer(t, func(point string, r *fstrimRange) error {
		calls[point]++
		if point == "/b" {
			time.Sleep(15 * time.Minute)
		}
		r.length = 4096
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []struct {
			limit time.Duration
			want  string
		}{
			{trimReply, `{"paths":[{"path":"/c","error":"failed to trim: not done yet, continues in the background"},` +
				`{"path":"/b","error":"failed to trim: not done yet, continues in the background"},{"path":"/a","trimmed":4096,"minimum":0}]}`},
			{15*time.Minute - trimReply, `{"paths":[{"path":"/c","trimmed":4096,"minimum":0},` +
				`{"path":"/b","trimmed":4096,"minimum":0},{"path":"/a","trimmed":4096,"minimum":0}]}`},
		} {
			began := time.Now()
			if got := fstrim(t, c, qga.FSTrimArgs{}); got != step.want {
				t.Errorf("got %s, want %s", got, step.want)
			}
			if took := time.Since(began); took != step.limit {
				t.Errorf("took %v, want %v", took, step.limit)
			}
		}
		for _, point := range []string{"/a", "/b", "/c"} {
			if calls[point] != 1 {
				t.Errorf("%s was trimmed %d times, want once", point, calls[point])
			}
		}
	})
}

// A disk that never answers costs the others an hour, once.
func TestTrimDeadDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := make(chan struct{})
		c := newTestTrimmer(t, func(point string, r *fstrimRange) error {
			if point == "/b" {
				<-dead
			}
			r.length = 4096
			return nil
		})
		fstrim(t, c, qga.FSTrimArgs{})
		time.Sleep(trimEach)
		began := time.Now()
		const want = `{"paths":[{"path":"/c","trimmed":4096,"minimum":0},` +
			`{"path":"/b","error":"failed to trim: system call does not return"},{"path":"/a","trimmed":4096,"minimum":0}]}`
		if got := fstrim(t, c, qga.FSTrimArgs{}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
		close(dead)
	})
}

func TestTrimClientLeaves(t *testing.T) {
	c := newTestTrimmer(t, func(_ string, r *fstrimRange) error {
		time.Sleep(time.Minute)
		r.length = 4096
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.fstrim(ctx, qga.FSTrimArgs{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that the client has left", err)
		}
		const want = `{"paths":[{"path":"/c","trimmed":4096,"minimum":0},` +
			`{"path":"/b","trimmed":4096,"minimum":0},{"path":"/a","trimmed":4096,"minimum":0}]}`
		if got := fstrim(t, c, qga.FSTrimArgs{}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
