package logging

import (
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
)

// TestReopenHanging rotates a log whose place does not answer any more.
func TestReopenHanging(t *testing.T) {
	t.Parallel()
	fs := guesttest.NewHangingFS(t)
	sink, err := File(fs.File)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	s := sink.(*stream)
	fd := s.fd
	s.path = fs.Lost
	begin := time.Now()
	err = sink.Reopen()
	if want := "unable to open specified log file: Connection timed out"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if took := time.Since(begin); took < filePatience {
		t.Errorf("given up after %v, want %v", took, filePatience)
	}
	if s.fd != fd {
		t.Error("the old file is not in use any more")
	}
}
