package clock

import (
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
)

func TestGetTime(t *testing.T) {
	before := time.Now().UnixMicro() * 1000
	got, err := getTime(t.Context(), qga.Empty{})
	after := time.Now().UnixNano()
	if err != nil {
		t.Fatal(err)
	}
	if got < before || got > after {
		t.Errorf("got %d, want a time from %d to %d", got, before, after)
	}
	if got%1000 != 0 {
		t.Errorf("got %d, want whole microseconds", got)
	}
}
