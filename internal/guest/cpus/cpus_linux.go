package cpus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/qga"
)

const cpuDir = "/sys/devices/system/cpu"

// A System is where to look. Its zero value is the running system.
type System struct {
	Root root.Dir
}

// Commands returns the commands of this package.
func Commands(s System) []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.GetVCPUs, s.vcpus),
		agent.Handle(qga.SetVCPUs, s.setVCPUs),
		agent.Handle(qga.GetCPUStats, s.stats),
		agent.Handle(qga.GetLoad, load),
	}
}

// switchLimit is how long a processor may take to go online or offline. It waits for
// other changes of the hardware, and what they wait for.
const switchLimit = time.Minute

// An unknownState is what a processor says instead of 0 or 1.
type unknownState string

func (s unknownState) Error() string { return fmt.Sprintf("neither 0 nor 1: %.20q", string(s)) }

// errNoSwitch is the answer of a processor that is always online, which on most
// machines is the first.
var errNoSwitch = errors.New("no file to take it offline by")

// vcpus lists the processors in the order of their numbers.
func (s System) vcpus(context.Context, qga.Empty) ([]qga.VCPU, error) {
	dir, ids, err := s.Root.OpenNumbered(cpuDir, "cpu")
	if err != nil {
		return nil, fmt.Errorf("failed to list entries: %s: %w", cpuDir, strerror.Reason(err))
	}
	defer dir.Close()
	// Each processor has a file that says whether it is online, and one file says it of
	// all, which for many is a lot less to read.
	var all set
	if len(ids) > 1 {
		if data, err := dir.ReadAttribute("online"); err == nil {
			all, _ = parseSet(string(data))
		}
	}
	list := make([]qga.VCPU, 0, len(ids))
	for _, id := range ids {
		online, err := stateIn(all, dir, int64(id))
		switch {
		case errors.Is(err, errNoSwitch):
			list = append(list, qga.VCPU{LogicalID: int64(id), Online: true, CanOffline: new(false)})
		case err == nil:
			list = append(list, qga.VCPU{LogicalID: int64(id), Online: online, CanOffline: new(true)})
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV): // unplugged since it was listed
		default:
			return nil, err
		}
	}
	return list, nil
}

// setVCPUs stops at the first failure. The client learns its cause when it
// begins the next request with that processor.
func (s System) setVCPUs(_ context.Context, args qga.SetVCPUsArgs) (int64, error) {
	for i, v := range args.VCPUs {
		if err := s.setVCPU(v.LogicalID, v.Online); err != nil {
			if i > 0 {
				return int64(i), nil
			}
			return 0, err
		}
	}
	return int64(len(args.VCPUs)), nil
}

func (s System) setVCPU(id int64, online bool) error {
	dir, err := s.Root.Open(cpuDir)
	if err != nil {
		return errNoProcessor(id, err)
	}
	defer dir.Close()
	now, err := state(dir, id)
	_, unknown := errors.AsType[unknownState](err)
	switch {
	case errors.Is(err, errNoSwitch):
		if online {
			return nil
		}
		return fmt.Errorf("logical processor #%d can't be offlined", id)
	case unknown: // the kernel can be told all the same
	case err != nil:
		return err
	case now == online:
		return nil
	}
	want := "0"
	if online {
		want = "1"
	}
	path := onlineFile(id)
	return attributeError("pwrite", path, s.Root.Store(path, want, switchLimit))
}

// stateIn is state, for when it is known which processors are online; nil is that it
// is not.
func stateIn(online set, dir root.Directory, id int64) (bool, error) {
	if online == nil {
		return state(dir, id)
	}
	switch err := dir.Check(switchName(id)); {
	case err == nil:
		return online.has(id), nil
	case isMissing(err):
		return false, whyNoSwitch(dir, id)
	}
	return state(dir, id)
}

// state returns the state of a processor, or errNoSwitch if it has but one.
func state(dir root.Directory, id int64) (bool, error) {
	data, err := dir.ReadAttribute(switchName(id))
	if isMissing(err) {
		return false, whyNoSwitch(dir, id)
	}
	if err == nil {
		switch strings.TrimSuffix(string(data), "\n") {
		case "0":
			return false, nil
		case "1":
			return true, nil
		case "":
			err = io.ErrUnexpectedEOF
		default:
			err = unknownState(data)
		}
	}
	return false, attributeError("pread", onlineFile(id), err)
}

// whyNoSwitch returns errNoSwitch, or what is wrong with the processor itself.
func whyNoSwitch(dir root.Directory, id int64) error {
	if err := dir.Check(name(id) + "/"); err != nil {
		return errNoProcessor(id, err)
	}
	return errNoSwitch
}

func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// name and switchName are relative to cpuDir.
func name(id int64) string       { return "cpu" + strconv.FormatInt(id, 10) }
func switchName(id int64) string { return name(id) + "/online" }

func errNoProcessor(id int64, err error) error {
	return fmt.Errorf("Could not open '%s': %w", cpuPath(id), strerror.Reason(err))
}

func cpuPath(id int64) string { return fmt.Sprintf("%s/cpu%d/", cpuDir, id) }

// onlineFile has two slashes as it is part of error messages, and the C agent's
// have.
func onlineFile(id int64) string { return cpuPath(id) + "/online" }

// attributeError words the failure of an operation on an attribute as the C
// agent does; op is what it calls the operation if the attribute could be
// opened.
func attributeError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok && e.Op == "open" {
		return fmt.Errorf("could not open %s: %w", path, strerror.Reason(err))
	}
	return fmt.Errorf("%s(%q): %w", op, path, strerror.Reason(err))
}

func (s System) stats(context.Context, qga.Empty) ([]qga.CPUStats, error) {
	const path = "/proc/stat"
	data, err := s.Root.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("Could not open '%s': %w", path, strerror.Reason(err))
	}
	return parseStat(string(data)), nil
}

// load asks the kernel, as getloadavg(3) does, rather than /proc/loadavg: the
// numbers are finer, and there where /proc is not.
func load(context.Context, qga.Empty) (qga.LoadAverage, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return qga.LoadAverage{}, fmt.Errorf("sysinfo: %w", strerror.Reason(err))
	}
	const one = 1 << 16 // SI_LOAD_SHIFT of linux/sysinfo.h
	return qga.LoadAverage{
		Load1m:  float64(info.Loads[0]) / one,
		Load5m:  float64(info.Loads[1]) / one,
		Load15m: float64(info.Loads[2]) / one,
	}, nil
}
