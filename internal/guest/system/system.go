//go:build unix

package system

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/qga"
)

// A System is where to look. Its zero value is the running system.
type System struct {
	// Root takes the place of the root directory.
	Root root.Dir
}

// Commands returns the commands of this package.
func Commands(s System) []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.GetHostName, s.hostName),
		agent.Handle(qga.GetTimezone, s.timezone),
		agent.Handle(qga.GetOSInfo, s.osInfo),
	}
}

// hostName never fails: a guest without a name of its own is localhost to
// itself.
func (s System) hostName(context.Context, qga.Empty) (qga.HostName, error) {
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return qga.HostName{HostName: name}, nil
}

// timezone looks the zone up for each request, as an administrator may change
// it at any time.
func (s System) timezone(context.Context, qga.Empty) (qga.Timezone, error) {
	tz, set := os.LookupEnv("TZ")
	zone, offset := time.Now().In(s.location(tz, set)).Zone()
	return qga.Timezone{Zone: &zone, Offset: int64(offset)}, nil
}

// osInfo leaves out what it does not find.
func (s System) osInfo(context.Context, qga.Empty) (qga.OSInfo, error) {
	var info qga.OSInfo
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		info.KernelRelease = new(unix.ByteSliceToString(u.Release[:]))
		info.KernelVersion = new(unix.ByteSliceToString(u.Version[:]))
		info.Machine = new(unix.ByteSliceToString(u.Machine[:]))
	}
	parseOSRelease(s.osRelease(), func(key, value string) {
		switch key {
		case "ID":
			info.ID = &value
		case "NAME":
			info.Name = &value
		case "PRETTY_NAME":
			info.PrettyName = &value
		case "VERSION":
			info.Version = &value
		case "VERSION_ID":
			info.VersionID = &value
		case "VARIANT":
			info.Variant = &value
		case "VARIANT_ID":
			info.VariantID = &value
		}
	})
	return info, nil
}
