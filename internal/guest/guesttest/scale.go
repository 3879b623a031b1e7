package guesttest

import (
	"math"
	"os"
	"runtime"
	"testing"
	"time"
)

// Proportional checks that to run for n things takes no more than bytes of
// memory for each, all that is allocated counted; and that the time and memory
// for them is not out of proportion to what a quarter of them take. prepare makes
// so many things. The race detector has more on the heap than there is without
// it, which bytes has to allow for.
func Proportional(t *testing.T, n int, bytes uint64, prepare func(t *testing.T, n int) (run func())) {
	t.Helper()
	// Thousands of files are made, and this is not to measure a disk.
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm")
	}
	runFew, runMany := prepare(t, n/4), prepare(t, n)
	few, fewTime := cost(runFew)
	many, manyTime := cost(runMany)
	// It would be sixteen times as long if it grew with the square. Four times as
	// many files may well be more than the processor's cache holds, and the machine
	// may have been busy just then.
	for range 20 {
		if manyTime <= 13*fewTime {
			break
		}
		_, f := cost(runFew)
		_, m := cost(runMany)
		fewTime, manyTime = min(fewTime, f), min(manyTime, m)
	}
	t.Logf("%d: %d bytes, %v; %d: %d bytes, %v", n/4, few, fewTime, n, many, manyTime)
	if manyTime > 13*fewTime {
		t.Errorf("time for four times as many is %.1f times as long", float64(manyTime)/float64(fewTime))
	}
	if most := bytes * uint64(n); many > most {
		t.Errorf("%d bytes for %d, want %d at most", many, n, most)
	}
	// What grows by doubling may be just below, or just above.
	if many > 6*few {
		t.Errorf("memory for four times as many is %.1f times as much", float64(many)/float64(few))
	}
}

// cost returns what a run takes when it is not the first one.
func cost(run func()) (bytes uint64, shortest time.Duration) {
	run()
	shortest = math.MaxInt64
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		run()
		shortest = min(shortest, time.Since(begin))
		runtime.ReadMemStats(&after)
		bytes = after.TotalAlloc - before.TotalAlloc
	}
	return bytes, shortest
}
