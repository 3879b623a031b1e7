package clock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/guest/run/runtest"
	"github.com/bellhop-vm/bellhop/qga"
)

// A machine has two clocks that go as the test's time does. The machine that
// the tests run on keeps its own.
type machine struct {
	offset   time.Duration // of the system's clock from the test's
	hardware time.Duration // of the hardware's
	begin    time.Duration // the lead of the hardware's
	stopped  bool

	setErr, openErr, readErr, writeErr error

	settings int // how often the system's clock was set
	open     int // how many have the hardware's open
}

func (m *machine) now() time.Time { return time.Now().Add(m.offset) }

func (m *machine) set(t time.Time) error {
	if m.setErr != nil {
		return m.setErr
	}
	m.settings++
	m.offset = time.Until(t)
	return nil
}

func (m *machine) openRTC() (rtc, error) {
	if m.openErr != nil {
		return nil, m.openErr
	}
	m.open++
	return hardware{m}, nil
}

type hardware struct{ *machine }

func (h hardware) read() (time.Time, error) {
	if h.stopped {
		return time.Unix(1e9, 0).UTC(), h.readErr
	}
	return time.Now().Add(h.machine.hardware).UTC().Truncate(time.Second), h.readErr
}

func (h hardware) set(t time.Time) error {
	if h.writeErr != nil {
		return h.writeErr
	}
	h.machine.hardware = time.Until(t.Add(h.begin))
	return nil
}

func (h hardware) lead() time.Duration { return h.begin }
func (h hardware) close()              { h.open-- }

// tree returns a root with the given /etc/adjtime, in Berlin.
func tree(t *testing.T, adjtime string) root.Dir {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	zone, err := os.ReadFile("/usr/share/zoneinfo/Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	for name, data := range map[string]string{"etc/adjtime": adjtime, "etc/localtime": string(zone)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root.Dir(dir)
}

const (
	utc     = "0.0 0 0.0\n0\nUTC\n"
	local   = "0.0 0 0.0\n0\nLOCAL\n"
	drifted = "0.013 1700000000 0.0\n1700000000\nUTC\n"
)

func noHwclock(_ context.Context, c run.Command) ([]byte, error) {
	return nil, &run.StartError{Action: c.Action, Program: c.Args[0], Err: syscall.ENOENT}
}

func TestSetBoth(t *testing.T) {
	for _, begin := range []time.Duration{0, time.Second / 2} {
		for adjtime, ahead := range map[string]time.Duration{"": 0, utc: 0, local: 2 * time.Hour, "garbage": 0} {
			dir := tree(t, adjtime)
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(123456789 * time.Nanosecond)
				m := &machine{begin: begin, hardware: 90 * time.Minute}
				recorder := &runtest.Recorder{}
				s := &setter{kernel: m, root: dir, run: recorder.Run}
				want := time.Date(2026, 7, 1, 12, 0, 0, 700000999, time.UTC)
				if _, err := s.setTime(t.Context(), qga.SetTimeArgs{Time: new(want.UnixNano())}); err != nil {
					t.Fatal(err)
				}
				took := m.now().Sub(want)
				if took > 1100*time.Millisecond || took < -time.Microsecond {
					t.Errorf("adjtime %q: the system's clock is off by %v", adjtime, took)
				}
				if off := m.hardware - m.offset - ahead; off.Abs() > time.Millisecond {
					t.Errorf("adjtime %q, lead %v: the hardware's clock is off by %v", adjtime, begin, off)
				}
				if m.settings != 1 || m.open != 0 {
					t.Errorf("set %d times, open %d times", m.settings, m.open)
				}
				if ran := recorder.Take(); ran != nil {
					t.Errorf("ran %v", ran)
				}
			})
		}
	}
}

func TestSetFromHardware(t *testing.T) {
	for adjtime, ahead := range map[string]time.Duration{utc: 0, local: 2 * time.Hour} {
		dir := tree(t, adjtime)
		synctest.Test(t, func(t *testing.T) {
			hardware := time.Until(time.Date(2026, 7, 1, 12, 0, 0, 345000000, time.UTC))
			m := &machine{hardware: hardware}
			recorder := &runtest.Recorder{}
			s := &setter{kernel: m, root: dir, run: recorder.Run}
			if _, err := s.setTime(t.Context(), qga.SetTimeArgs{}); err != nil {
				t.Fatal(err)
			}
			if off := m.hardware - m.offset - ahead; off < 0 || off > 10*time.Millisecond {
				t.Errorf("adjtime %q: off by %v", adjtime, off)
			}
			if m.settings != 1 || m.open != 0 || m.hardware != hardware {
				t.Errorf("set %d times, open %d times, hardware's clock moved by %v", m.settings, m.open, m.hardware-hardware)
			}
			if ran := recorder.Take(); ran != nil {
				t.Errorf("ran %v", ran)
			}
		})
	}
}

// These are the C agent's answers, version 11.1.3.
func TestSetRange(t *testing.T) {
	for _, test := range []struct {
		time int64
		want string
	}{
		{-1000000000, "Invalid time"},
		{3155760000000000000, "Invalid time"}, // 2070
		{9223372036854775807, "Invalid time"},
		{-9223372036854775808, "Invalid time"},
		{-1, "Failed to set time to guest: Invalid argument"},
		{0, "Failed to set time to guest: Invalid argument"},
		{3155759999999999999, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := &machine{}
			if test.time <= 0 { // a kernel does not go back to before its start
				m.setErr = syscall.EINVAL
			}
			s := &setter{kernel: m, root: "/nonexistent", run: noHwclock}
			_, err := s.setTime(t.Context(), qga.SetTimeArgs{Time: &test.time})
			if text(err) != test.want {
				t.Errorf("%d: got %v, want %q", test.time, err, test.want)
			}
			if test.want != "" && m.settings != 0 {
				t.Errorf("%d: the clock was set", test.time)
			}
		})
	}
}

// TestSetRangeOfZone has the year be the one of the guest's time zone.
func TestSetRangeOfZone(t *testing.T) {
	dir := tree(t, "") // in Berlin, an hour ahead
	for seconds, want := range map[int64]string{
		-3601:          "Invalid time",
		-1:             "",
		3155760000 - 1: "Invalid time", // the last second of 2069 in UTC
		3155756400 - 1: "",
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &setter{kernel: &machine{}, root: dir, run: noHwclock}
			if _, err := s.setTime(t.Context(), qga.SetTimeArgs{Time: new(seconds * 1e9)}); text(err) != want {
				t.Errorf("%d: got %v, want %q", seconds, err, want)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestHwclock(t *testing.T) {
	const failed = "child process has failed to set hardware clock to system time: hwclock: no RTC\n"
	fails := func(_ context.Context, c run.Command) ([]byte, error) {
		return nil, &run.ExitError{Action: c.Action, Code: 1, Output: []byte("hwclock: no RTC\n")}
	}
	const alone = "failed to set hardware clock to system time: "
	for _, test := range []struct {
		name     string
		machine  machine
		adjtime  string
		hwclock  run.Func
		ran      int
		settings [2]int // with a time and without
		want     [2]string
	}{
		{"no device", machine{openErr: syscall.ENOENT}, utc, nil, 1, [2]int{1, 0}, [2]string{}},
		{"no device, and hwclock fails", machine{openErr: syscall.ENOENT}, utc, fails, 1, [2]int{1, 0}, [2]string{failed, failed}},
		{"nothing at all", machine{openErr: syscall.ENOENT}, utc, noHwclock, 1, [2]int{1, 0}, [2]string{alone + "No such file or directory", alone + "No such file or directory"}},
		{"battery empty", machine{readErr: syscall.EINVAL}, utc, noHwclock, -1, [2]int{1, 0}, [2]string{"", alone + "Invalid argument"}},
		{"read-only", machine{writeErr: syscall.EACCES}, utc, noHwclock, -1, [2]int{1, 1}, [2]string{alone + "Permission denied", ""}},
		{"stopped", machine{stopped: true}, utc, noHwclock, -1, [2]int{1, 0}, [2]string{"", alone + "the hardware clock stands still"}},
		{"drifts", machine{}, drifted, nil, 1, [2]int{1, 0}, [2]string{}},
		{"drifts, and hwclock fails", machine{}, drifted, fails, 1, [2]int{1, 0}, [2]string{failed, failed}},
		{"drifts, but there is no hwclock", machine{}, drifted, noHwclock, 1, [2]int{1, 1}, [2]string{}},
		{"not allowed", machine{setErr: syscall.EPERM}, utc, noHwclock, -1, [2]int{}, [2]string{"Failed to set time to guest: Operation not permitted", alone + "Operation not permitted"}},
	} {
		dir := tree(t, test.adjtime)
		for i, args := range []qga.SetTimeArgs{{Time: new(int64(1782907200e9))}, {}} {
			synctest.Test(t, func(t *testing.T) {
				m := test.machine
				recorder := &runtest.Recorder{Reply: test.hwclock}
				s := &setter{kernel: &m, root: dir, run: recorder.Run}
				if _, err := s.setTime(t.Context(), args); text(err) != test.want[i] {
					t.Errorf("%s: got %v, want %q", test.name, err, test.want[i])
				}
				if m.settings != test.settings[i] || m.open != 0 {
					t.Errorf("%s: set %d times, want %d; open %d times", test.name, m.settings, test.settings[i], m.open)
				}
				ran := recorder.Take()
				if test.ran >= 0 && len(ran) != test.ran {
					t.Errorf("%s: ran %v", test.name, ran)
				}
				for _, c := range ran {
					if got, want := strings.Join(c.Args, " "), "/sbin/hwclock "+[2]string{"-w", "-s"}[i]; got != want {
						t.Errorf("%s: ran %q, want %q", test.name, got, want)
					}
				}
			})
		}
	}
}

func TestSetCancelled(t *testing.T) {
	dir := tree(t, utc)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		recorder := &runtest.Recorder{}
		s := &setter{kernel: &machine{stopped: true}, root: dir, run: recorder.Run}
		if _, err := s.setTime(ctx, qga.SetTimeArgs{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if ran := recorder.Take(); ran != nil {
			t.Errorf("ran %v", ran)
		}
	})
}

func TestRTCTime(t *testing.T) {
	for want, at := range map[unix.RTCTime]time.Time{
		{Year: 70, Mday: 1}: time.Unix(0, 0).UTC(),
		{Year: 169, Mon: 11, Mday: 31, Hour: 23, Min: 59, Sec: 59}: time.Date(2069, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		if got := toRTC(at); *got != want {
			t.Errorf("%v: got %+v, want %+v", at, *got, want)
		}
		if got := fromRTC(&want); !got.Equal(at) {
			t.Errorf("%+v: got %v, want %v", want, got, at)
		}
	}
}
