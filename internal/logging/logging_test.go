package logging

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a sink that keeps what it gets, in the format of the log.
type memory struct {
	lines  []string
	refuse bool
	opened int // times that it was opened anew
}

func (m *memory) Write(t time.Time, level Level, text []byte) bool {
	if m.refuse {
		return false
	}
	m.lines = append(m.lines, string(appendLine(nil, t, level, text)))
	return true
}

func (m *memory) Reopen() error {
	m.opened++
	return nil
}

func (m *memory) Close() error { return nil }

// newTest returns a logger whose clock advances by a second with each message.
func newTest(verbose bool) (l *Logger, log, audit *memory) {
	log, audit = &memory{}, &memory{}
	l = New(log, audit, verbose)
	now := time.Unix(1000, 42000)
	l.now = func() time.Time {
		now = now.Add(time.Second)
		return now
	}
	return l, log, audit
}

func TestLevels(t *testing.T) {
	t.Parallel()
	all := []func(*Logger, string, ...any){
		(*Logger).Errorf, (*Logger).Criticalf, (*Logger).Warningf, (*Logger).Messagef, (*Logger).Infof, (*Logger).Debugf,
	}
	for _, tt := range []struct {
		verbose bool
		want    []string
	}{
		{false, []string{"1001.000042: error: n 0\n", "1002.000042: critical: n 1\n"}},
		{true, []string{
			"1001.000042: error: n 0\n", "1002.000042: critical: n 1\n", "1003.000042: warning: n 2\n",
			"1004.000042: message: n 3\n", "1005.000042: info: n 4\n", "1006.000042: debug: n 5\n",
		}},
	} {
		l, log, audit := newTest(tt.verbose)
		for i, logf := range all {
			logf(l, "n %d", i)
		}
		if !slices.Equal(log.lines, tt.want) {
			t.Errorf("verbose %v: got %q, want %q", tt.verbose, log.lines, tt.want)
		}
		l.Auditf("done")
		if want := "info: done\n"; len(audit.lines) != 1 || !strings.HasSuffix(audit.lines[0], want) {
			t.Errorf("verbose %v: audit %q, want %q", tt.verbose, audit.lines, want)
		}
	}
}

func TestOneMessageIsOneLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a b\\c":                   `a b\c`,
		"a\nb\r\t\x00\x1b[1mü":     `a\nb\r\t\x00\x1b[1mü`,
		"\x7f\xff\xc3\u0085\u202e": `\x7f\xff\xc3\u85\u202e`,
		"\ufffd":                   "\ufffd",
	} {
		if got := string(appendEscaped(nil, in)); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
	for _, unit := range []string{"x", "\n", "ü"} {
		if n := len(appendEscaped(nil, strings.Repeat(unit, maxText))); n > maxText+len(`\x00...`) {
			t.Errorf("%q many times makes %d bytes", unit, n)
		}
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	l, log, audit := newTest(false)
	l.Hold()
	l.Hold()
	l.Errorf("one")
	if err := l.Reopen(); err != nil || log.opened != 0 {
		t.Errorf("while held: opened %d times, %v", log.opened, err)
	}
	l.Auditf("two")
	l.Debugf("suppressed")
	l.Release()
	l.Errorf("three")
	if len(log.lines)+len(audit.lines) != 0 {
		t.Errorf("while held: wrote %q and %q", log.lines, audit.lines)
	}
	l.Release()
	l.Release() // too many is harmless
	if log.opened != 1 {
		t.Errorf("opened %d times after the hold, want once", log.opened)
	}
	l.Errorf("four")
	want := []string{"1001.000042: error: one\n", "1003.000042: error: three\n", "1004.000042: error: four\n"}
	if !slices.Equal(log.lines, want) {
		t.Errorf("got %q, want %q", log.lines, want)
	}
	if want := []string{"1002.000042: info: two\n"}; !slices.Equal(audit.lines, want) {
		t.Errorf("audit got %q, want %q", audit.lines, want)
	}
}

func TestHoldIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		n    int
		text string
	}{
		{"records", maxHeldRecords + 10, ""},
		{"bytes", 100, strings.Repeat("x", maxText)},
		{"long messages", 100, strings.Repeat("x", 2*maxHeldBytes)},
	} {
		l, log, _ := newTest(false)
		l.Hold()
		for i := range tt.n {
			l.Errorf("%d %s", i, tt.text)
			if l.heldBytes > maxHeldBytes || len(l.held) > maxHeldRecords {
				t.Fatalf("%s: holds %d records, %d bytes", tt.name, len(l.held), l.heldBytes)
			}
		}
		kept := len(l.held)
		l.Release()
		notice := fmt.Sprintf("warning: the oldest %d messages ", tt.n-kept)
		if kept == 0 || len(log.lines) != kept+1 || !strings.Contains(log.lines[0], notice) {
			t.Errorf("%s: kept %d, wrote %d lines, first %q, want %q", tt.name, kept, len(log.lines), log.lines[0], notice)
		}
		if last := log.lines[kept]; !strings.Contains(last, fmt.Sprintf("error: %d ", tt.n-1)) {
			t.Errorf("%s: last line %.40q, want the newest message", tt.name, last)
		}
	}
}

func TestLostMessagesAreCounted(t *testing.T) {
	t.Parallel()
	l, log, _ := newTest(false)
	log.refuse = true
	l.Errorf("one")
	l.Errorf("two")
	log.refuse = false
	l.Errorf("three")
	l.Errorf("four")
	want := []string{
		"1003.000042: warning: 2 messages are lost because nobody took them\n",
		"1003.000042: error: three\n", "1004.000042: error: four\n",
	}
	if !slices.Equal(log.lines, want) {
		t.Errorf("got %q, want %q", log.lines, want)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	l, log, audit := newTest(true)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				l.Hold()
				l.Infof("x")
				l.Release()
				l.Auditf("y")
			}
		})
	}
	wg.Wait()
	if len(log.lines) != 400 || len(audit.lines) != 400 {
		t.Errorf("wrote %d and %d messages, want 400 each", len(log.lines), len(audit.lines))
	}
}

func TestSuppressedMessagesAllocateNothing(t *testing.T) {
	l, _, _ := newTest(false)
	v := &struct{ n int }{7}
	if n := testing.AllocsPerRun(100, func() {
		l.Debugf("plain")
		l.Debugf("pointer %p", v)
		if l.Enabled(Debug) {
			l.Debugf("number %d", time.Now().UnixNano())
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkSuppressed(b *testing.B) {
	l := New(Discard, Discard, false)
	b.ReportAllocs()
	for b.Loop() {
		l.Debugf("guest-ping called")
	}
}
