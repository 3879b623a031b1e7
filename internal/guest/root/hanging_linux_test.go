package root_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

// TestStoreHanging stores where nobody answers.
func TestStoreHanging(t *testing.T) {
	fs := guesttest.NewHangingFS(t)
	d, name := root.Dir(filepath.Dir(fs.File)), "/"+filepath.Base(fs.File)
	begin := time.Now()
	const limit = 50 * time.Millisecond
	if err := d.Store(name, "1", limit); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("got %v, want %v", err, syscall.ETIMEDOUT)
	}
	if took := time.Since(begin); took < limit {
		t.Errorf("given up after %v", took)
	}
	fs.Answer()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := d.Store(name, "1", time.Minute)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.ETIMEDOUT) || time.Now().After(end) {
			t.Fatalf("once there is an answer: %v", err)
		}
	}
}
