package cpus

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/guesttest"
	"github.com/bellhop-vm/bellhop/qga"
)

// tree makes a System of the files, whose names begin with "cpu".
func tree(t testing.TB, files map[string]string) System {
	t.Helper()
	below := make(map[string]string)
	for name, contents := range files {
		below[cpuDir+"/"+name] = contents
	}
	return System{Root: guesttest.Tree(t, below)}
}

func (s System) contents(t *testing.T, id int64) string {
	t.Helper()
	data, err := s.Root.ReadFile(onlineFile(id))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestVCPUs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // the reply, or the error
	}{
		{
			"numeric order, other entries",
			map[string]string{"cpu0/": "", "cpu10/online": "1\n", "cpu9/online": "0\n", "cpufreq/": "", "cpuidle/": "", "online": "0,10\n", "cpu1x/": ""},
			`[{"logical-id":0,"online":true,"can-offline":false},{"logical-id":9,"online":false,"can-offline":true},` +
				`{"logical-id":10,"online":true,"can-offline":true}]`,
		},
		{
			"all together not readable",
			map[string]string{"cpu0/": "", "cpu1/online": "1\n", "cpu2/online": "0\n", "online": "0-"},
			`[{"logical-id":0,"online":true,"can-offline":false},{"logical-id":1,"online":true,"can-offline":true},` +
				`{"logical-id":2,"online":false,"can-offline":true}]`,
		},
		{
			"all together",
			map[string]string{"cpu0/": "", "cpu1/online": "", "cpu2/online": "", "cpu3": "->gone", "online": "1\n"},
			`[{"logical-id":0,"online":true,"can-offline":false},{"logical-id":1,"online":true,"can-offline":true},` +
				`{"logical-id":2,"online":false,"can-offline":true}]`,
		},
		{"none", map[string]string{"online": ""}, `[]`},
		{"missing", nil, "failed to list entries: /sys/devices/system/cpu: No such file or directory"},
		{"not a directory", map[string]string{"../cpu": ""}, "failed to list entries: /sys/devices/system/cpu: Not a directory"},
		{"empty state", map[string]string{"cpu0/": "", "cpu1/online": ""}, `pread("/sys/devices/system/cpu/cpu1//online"): unexpected EOF`},
		{"blank state", map[string]string{"cpu0/": "", "cpu1/online": "\n"}, `pread("/sys/devices/system/cpu/cpu1//online"): unexpected EOF`},
		{"no such state", map[string]string{"cpu1/online": "2\n"}, `pread("/sys/devices/system/cpu/cpu1//online"): neither 0 nor 1: "2\n"`},
		{"more than a state", map[string]string{"cpu1/online": "01"}, `pread("/sys/devices/system/cpu/cpu1//online"): neither 0 nor 1: "01"`},
		{
			"garbage as state",
			map[string]string{"cpu1/online": "1\x00\xff" + strings.Repeat("x", 4000)},
			`pread("/sys/devices/system/cpu/cpu1//online"): neither 0 nor 1: "1\x00\xffxxxxxxxxxxxxxxxxx"`,
		},
		{"unreadable state", map[string]string{"cpu1/online/": ""}, `pread("/sys/devices/system/cpu/cpu1//online"): Is a directory`},
		{"looping state", map[string]string{"cpu1/online": "->online"}, "could not open /sys/devices/system/cpu/cpu1//online: Too many levels of symbolic links"},
		{"garbage", map[string]string{"cpu8": "x"}, "Could not open '/sys/devices/system/cpu/cpu8/': Not a directory"},
		// As it is between the listing and the look.
		{"unplugged", map[string]string{"cpu1/online": "1", "cpu2": "->gone"}, `[{"logical-id":1,"online":true,"can-offline":true}]`},
	} {
		got, err := tree(t, tt.files).vcpus(t.Context(), qga.Empty{})
		if s := guesttest.JSON(t, got, err); s != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, s, tt.want)
		}
	}
}

func TestVCPUsCaptured(t *testing.T) {
	for _, name := range []string{"virtio", "lvm-on-luks", "md-on-nvme", "no-udev"} {
		guest := guesttest.Captured(t, name)
		var want []qga.VCPU
		guest.Answer("guest-get-vcpus", &want)
		slices.SortFunc(want, func(a, b qga.VCPU) int { return cmp.Compare(a.LogicalID, b.LogicalID) })
		got, err := System{Root: guest.Root}.vcpus(t.Context(), qga.Empty{})
		if got, want := guesttest.JSON(t, got, err), guesttest.JSON(t, want, nil); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestSetVCPUs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the files of /proc that refuse to be written refuse to be opened by others than root")
	}
	vcpus := func(list ...any) (args qga.SetVCPUsArgs) {
		for i := 0; i < len(list); i += 2 {
			args.VCPUs = append(args.VCPUs, qga.VCPU{LogicalID: int64(list[i].(int)), Online: list[i+1].(bool)})
		}
		return args
	}
	for _, tt := range []struct {
		name string
		args qga.SetVCPUsArgs
		want string
		then string // the states of processors 1 and 2
	}{
		{"nothing", vcpus(), "0", "1\n 0\n"},
		{"offline", vcpus(1, false), "1", "0\n 0\n"},
		{"online", vcpus(2, true), "1", "1\n 1\n"},
		{"already so", vcpus(1, true, 2, false, 0, true), "3", "1\n 0\n"},
		{"in order", vcpus(1, false, 1, true, 2, true, 1, false), "4", "0\n 1\n"},
		{"up to the first failure", vcpus(1, false, 9, true, 2, true), "1", "0\n 0\n"},
		{"cannot offline", vcpus(0, false, 1, false), "logical processor #0 can't be offlined", "1\n 0\n"},
		{"no such", vcpus(9999, true), "Could not open '/sys/devices/system/cpu/cpu9999/': No such file or directory", "1\n 0\n"},
		{"negative", vcpus(-1, true), "Could not open '/sys/devices/system/cpu/cpu-1/': No such file or directory", "1\n 0\n"},
		{"write fails", vcpus(3, false), `pwrite("/sys/devices/system/cpu/cpu3//online"): Input/output error`, "1\n 0\n"},
		{"not writable", vcpus(4, false), "could not open /sys/devices/system/cpu/cpu4//online: Permission denied", "1\n 0\n"},
		{"no state", vcpus(5, false), `pread("/sys/devices/system/cpu/cpu5//online"): unexpected EOF`, "1\n 0\n"},
		{"unknown state, offline", vcpus(6, false, 1, false), "2", "0\n 0\n"},
		{"unknown state, online", vcpus(6, true, 1, false), "2", "0\n 0\n"},
	} {
		s := tree(t, map[string]string{
			"cpu0/": "", "cpu1/online": "1\n", "cpu2/online": "0\n",
			"cpu3/online": "->/proc/version", "cpu4/online": "->/proc/sys/kernel/ostype", "cpu5/online": "", "cpu6/online": "x\n",
		})
		got, err := s.setVCPUs(t.Context(), tt.args)
		if o := guesttest.JSON(t, got, err); o != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, o, tt.want)
		}
		if then := s.contents(t, 1) + " " + s.contents(t, 2); then != tt.then {
			t.Errorf("%s: left %q, want %q", tt.name, then, tt.then)
		}
	}
}

func TestStats(t *testing.T) {
	_, err := tree(t, nil).stats(t.Context(), qga.Empty{})
	if want := "Could not open '/proc/stat': No such file or directory"; err == nil || err.Error() != want {
		t.Errorf("without /proc: %v, want %s", err, want)
	}
	if stats, err := (System{}).stats(t.Context(), qga.Empty{}); err != nil || len(stats) == 0 {
		t.Errorf("of this machine: %v, %v", stats, err)
	}
}

func TestLoad(t *testing.T) {
	got, err := load(t.Context(), qga.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	var want qga.LoadAverage
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Skip(err)
	}
	if _, err := fmt.Sscan(string(data), &want.Load1m, &want.Load5m, &want.Load15m); err != nil {
		t.Fatal(err)
	}
	// It may be updated in between, by one part in twelve of the first.
	for _, d := range []float64{got.Load1m - want.Load1m, got.Load5m - want.Load5m, got.Load15m - want.Load15m} {
		if d > 1 || d < -1 {
			t.Errorf("got %+v, /proc/loadavg has %+v", got, want)
		}
	}
}

// manyCPUs is n processors, of which all but the first can be taken offline.
func manyCPUs(t testing.TB, n int) System {
	t.Helper()
	files := map[string]string{"cpu0/": "", "online": fmt.Sprintf("0-%d\n", n-1)}
	for i := 1; i < n; i++ {
		files[fmt.Sprintf("cpu%d/online", i)] = "1\n"
	}
	return tree(t, files)
}

func TestManyVCPUs(t *testing.T) {
	guesttest.Proportional(t, 512, 8<<10, func(t *testing.T, n int) func() {
		s := manyCPUs(t, n)
		return func() {
			if list, err := s.vcpus(t.Context(), qga.Empty{}); err != nil || len(list) != n {
				t.Error(len(list), err)
			}
		}
	})
}

func BenchmarkVCPUs512(b *testing.B) {
	s := manyCPUs(b, 512)
	for b.Loop() {
		if list, err := s.vcpus(b.Context(), qga.Empty{}); err != nil || len(list) != 512 {
			b.Fatal(len(list), err)
		}
	}
}
