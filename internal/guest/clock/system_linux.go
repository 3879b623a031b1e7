package clock

import (
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

// system is the kernel that we run on.
type system struct{}

func (system) now() time.Time { return time.Now() }

func (system) set(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if int64(tv.Sec) != t.Unix() {
		return unix.EOVERFLOW // a 32-bit system, and a time after 2038
	}
	return unix.Settimeofday(&tv)
}

// rtcDevices are the names of the hardware clock. Where there are several, the
// one without a number is the one that the system was told to use.
var rtcDevices = []string{"/dev/rtc", "/dev/rtc0", "/dev/misc/rtc"}

func (system) openRTC() (rtc, error) {
	for _, name := range rtcDevices {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return device(fd), nil
	}
	return nil, unix.ENOENT
}

// A device is a descriptor of a hardware clock.
type device int

func (d device) read() (time.Time, error) {
	t, err := unix.IoctlGetRTCTime(int(d))
	if err != nil {
		return time.Time{}, err
	}
	return fromRTC(t), nil
}

func (d device) set(t time.Time) error { return unix.IoctlSetRTCTime(int(d), toRTC(t)) }

func (d device) lead() time.Duration {
	var stat unix.Stat_t
	if unix.Fstat(int(d), &stat) != nil {
		return 0
	}
	rdev := uint64(stat.Rdev) //nolint:unconvert // not as wide everywhere
	name, err := root.Dir("").ReadLine(fmt.Sprintf("/sys/dev/char/%d:%d/name", unix.Major(rdev), unix.Minor(rdev)))
	if err == nil && strings.HasPrefix(name, "rtc_cmos") {
		return time.Second / 2 // the MC146818 and its descendants
	}
	return 0
}

func (d device) close() { _ = unix.Close(int(d)) }

// fromRTC and toRTC translate what a clock shows.
func fromRTC(t *unix.RTCTime) time.Time {
	return time.Date(int(t.Year)+1900, time.Month(t.Mon+1), int(t.Mday), int(t.Hour), int(t.Min), int(t.Sec), 0, time.UTC)
}

func toRTC(t time.Time) *unix.RTCTime {
	return &unix.RTCTime{
		Sec:  int32(t.Second()),
		Min:  int32(t.Minute()),
		Hour: int32(t.Hour()),
		Mday: int32(t.Day()),
		Mon:  int32(t.Month()) - 1,
		Year: int32(t.Year()) - 1900,
	}
}
