package stuck

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestDo(t *testing.T) {
	var c Calls[string, int]
	wrong := errors.New("wrong")
	if v, err := c.Do("a", time.Hour, func() (int, error) { return 7, nil }); v != 7 || err != nil {
		t.Errorf("got %d, %v", v, err)
	}
	if _, err := c.Do("a", time.Hour, func() (int, error) { return 0, wrong }); err != wrong {
		t.Errorf("got %v", err)
	}
	if len(c.calls) != 0 {
		t.Errorf("%d calls are remembered", len(c.calls))
	}
}

func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Calls[string, int]
		var started atomic.Int32
		release := make(chan struct{})
		hang := func() (int, error) {
			started.Add(1)
			<-release
			return 1, nil
		}
		do := func(limit time.Duration) (took time.Duration, err error) {
			start := time.Now()
			_, err = c.Do("dead", limit, hang)
			return time.Since(start), err
		}

		// Two requests share a call, each with a limit of its own.
		shared := make(chan error)
		go func() {
			_, err := do(5 * time.Second)
			shared <- err
		}()
		if took, err := do(2 * time.Second); err != ErrStuck || took != 2*time.Second {
			t.Errorf("first: got %v after %v", err, took)
		}
		if took, err := do(2 * time.Second); err != ErrStuck || took != 0 {
			t.Errorf("once stuck: got %v after %v", err, took)
		}
		if err := <-shared; err != ErrStuck {
			t.Errorf("second: got %v", err)
		}
		if n := started.Load(); n != 1 || c.stuck != 1 {
			t.Errorf("%d calls were started, %d are stuck", n, c.stuck)
		}
		if v, err := c.Do("alive", time.Second, func() (int, error) { return 2, nil }); v != 2 || err != nil {
			t.Errorf("another key: got %d, %v", v, err)
		}

		close(release)
		synctest.Wait()
		if took, err := do(time.Second); err != nil || took != 0 {
			t.Errorf("after it came back: got %v after %v", err, took)
		}
		if len(c.calls) != 0 || c.stuck != 0 {
			t.Errorf("%d calls are remembered, %d as stuck", len(c.calls), c.stuck)
		}
	})
}

// TestMost has more calls hang than there may be.
func TestMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Calls[int, int]
		var running atomic.Int32
		release := make(chan struct{})
		for i := range 3 * most {
			_, err := c.Do(i, time.Second, func() (int, error) {
				running.Add(1)
				<-release
				return 0, nil
			})
			if err != ErrStuck {
				t.Errorf("%d: got %v", i, err)
			}
		}
		if n := running.Load(); n != most {
			t.Errorf("%d calls hang, want %d", n, most)
		}
		close(release)
		synctest.Wait()
		if _, err := c.Do(0, time.Second, func() (int, error) { return 0, nil }); err != nil || c.stuck != 0 {
			t.Errorf("afterwards: got %v, %d stuck", err, c.stuck)
		}
	})
}

func BenchmarkDo(b *testing.B) {
	var c Calls[int, int]
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Do(1, time.Second, func() (int, error) { return 0, nil })
	}
}

func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan int, 1)
		do := func(takes, limit time.Duration) (int, error) {
			return Do(limit, func() int {
				time.Sleep(takes)
				return 7
			}, func(v int) { late <- v })
		}
		if v, err := do(time.Second, time.Minute); v != 7 || err != nil {
			t.Errorf("in time: got %d, %v", v, err)
		}
		start := time.Now()
		if v, err := do(time.Hour, time.Minute); v != 0 || err != ErrStuck || time.Since(start) != time.Minute {
			t.Errorf("late: got %d, %v after %v", v, err, time.Since(start))
		}
		if v := <-late; v != 7 || time.Since(start) != time.Hour {
			t.Errorf("what came late is %d after %v", v, time.Since(start))
		}
		synctest.Wait()
		select {
		case v := <-late:
			t.Errorf("what came in time counts as late: %d", v)
		default:
		}
	})
}
