package buffer

import (
	"bytes"
	"testing"
)

func TestGrow(t *testing.T) {
	var b, want []byte
	for i := 0; len(b) < 5<<20; i++ {
		piece := bytes.Repeat([]byte{byte(i)}, 1+i*i)
		if cap(b)-len(b) < len(piece) {
			var ok bool
			if b, ok = Grow(b, len(piece)); !ok || cap(b)-len(b) < len(piece) {
				t.Fatalf("room for %d bytes, want %d", cap(b)-len(b), len(piece))
			}
		}
		b, want = append(b, piece...), append(want, piece...)
	}
	if !bytes.Equal(b, want) {
		t.Error("what was written before it grew is not what it was")
	}
	Release(b)
	Release(nil)
}
