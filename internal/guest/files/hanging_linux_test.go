package files

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// TestHanging has each command meet a file system that does not answer.
func TestHanging(t *testing.T) {
	fs := guesttest.NewHangingFS(t)
	table := New(Config{Handles: new(counter)})
	const soon, never = 50 * time.Millisecond, time.Minute
	table.limit = soon
	before := descriptors(t)

	places := func() int {
		table.mu.Lock()
		defer table.mu.Unlock()
		return table.places
	}
	failed := func(what string, err error, want string) {
		t.Helper()
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	open := func(path string, limit time.Duration) (qga.Handle, error) {
		table.limit = limit
		defer func() { table.limit = soon }()
		return table.open(t.Context(), qga.FileOpenArgs{Path: path, Mode: new("r+")})
	}
	read := func(h qga.Handle, count int64) (string, error) {
		var out bytes.Buffer
		w := wire.NewWriter(&out)
		err := errors.Join(table.read(t.Context(), qga.FileReadArgs{Handle: h, Count: &count}, w), w.Flush())
		return out.String(), err
	}

	_, err := open(fs.Lost, soon)
	failed("open", err, "failed to open file '"+fs.Lost+"' (mode: 'r+'): Connection timed out")

	reader, err := open(fs.File, never)
	if err != nil {
		t.Fatal(err)
	}
	_, err = read(reader, 3<<20)
	failed("read", err, "failed to read file: Connection timed out")

	writer, err := open(fs.File, never)
	if err != nil {
		t.Fatal(err)
	}
	_, err = table.write(t.Context(), qga.FileWriteArgs{Handle: writer, Data: []byte("data")})
	failed("write", err, "failed to write to file: Connection timed out")
	inUse, ok := errors.AsType[*agent.InUse](err)
	if !ok {
		t.Fatalf("%T does not say that the data are in use", err)
	}
	select {
	case <-inUse.Until:
		t.Error("the data count as free, and are being written")
	default:
	}

	// The file is busy meanwhile, others are not.
	table.limit = never
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := table.seek(ctx, qga.FileSeekArgs{Handle: reader}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("seek: got %v", err)
	}
	alive := mustOpen(t, table, tempFile(t, "alive"), "r")
	if got, err := read(alive, 10); err != nil || !strings.Contains(got, `"count": 5`) {
		t.Errorf("another file: got %s, %v", got, err)
	}

	// A host that tries again and again gets no more threads than there may be.
	table.limit = soon
	for table.late.Load() < maxLate {
		_, err := table.open(t.Context(), qga.FileOpenArgs{Path: fs.Lost})
		failed("open again", err, "failed to open file '"+fs.Lost+"' (mode: 'r'): Connection timed out")
	}
	taken, asked := places(), fs.Waiting()
	_, err = table.open(t.Context(), qga.FileOpenArgs{Path: fs.Lost})
	failed("open too often", err, "failed to open file '"+fs.Lost+"' (mode: 'r'): Connection timed out")
	if places() != taken || fs.Waiting() != asked {
		t.Errorf("one more call was made: %d places, %d before; %d calls, %d before", places(), taken, fs.Waiting(), asked)
	}

	fs.Answer()
	select {
	case <-inUse.Until:
	case <-time.After(time.Minute):
		t.Fatal("the data are still in use")
	}
	table.limit = never
	if got, err := read(reader, 10); err != nil || !strings.Contains(got, `"eof": true`) {
		t.Errorf("read after all: got %s, %v", got, err)
	}
	for _, h := range []qga.Handle{reader, writer, alive} {
		if _, err := table.close(t.Context(), qga.HandleArgs{Handle: h}); err != nil {
			t.Error(err)
		}
	}
	// What came late has been closed as well.
	for end := time.Now().Add(time.Minute); descriptors(t) > before || places() != 0 || table.late.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before; %d places are taken, %d calls late", descriptors(t), before, places(), table.late.Load())
		}
	}
}
