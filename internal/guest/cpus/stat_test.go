package cpus

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// The members of each line's account are those that the C agent 11.1.3 replies
// to it with, except for softirq where the line ends before it.
func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		name, data, want string
	}{
		{"empty", "", `[]`},
		{
			"every field",
			"cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 100 200 300 400 500 600 700 800 900 1000\nintr 5 0\nctxt 1\n",
			`[{"type":"linux","cpu":0,"user":1000,"nice":2000,"system":3000,"idle":4000,"iowait":5000,"irq":6000,` +
				`"softirq":7000,"steal":8000,"guest":9000,"guestnice":10000}]`,
		},
		{
			"old kernels",
			"cpu3 1 2 3 4\ncpu5 1 2 3 4 5\ncpu6 1 2 3 4 5 6\ncpu7 1 2 3 4 5 6 7\ncpu8 1 2 3 4 5 6 7 8\n",
			`[{"type":"linux","cpu":3,"user":10,"nice":20,"system":30,"idle":40},` +
				`{"type":"linux","cpu":5,"user":10,"nice":20,"system":30,"idle":40,"iowait":50},` +
				`{"type":"linux","cpu":6,"user":10,"nice":20,"system":30,"idle":40,"iowait":50,"irq":60},` +
				`{"type":"linux","cpu":7,"user":10,"nice":20,"system":30,"idle":40,"iowait":50,"irq":60,"softirq":70},` +
				`{"type":"linux","cpu":8,"user":10,"nice":20,"system":30,"idle":40,"iowait":50,"irq":60,"softirq":70,"steal":80}]`,
		},
		{"newer kernels", "cpu0 1 2 3 4 5 6 7 8 9 10 11 12\n", `[{"type":"linux","cpu":0,"user":10,"nice":20,` +
			`"system":30,"idle":40,"iowait":50,"irq":60,"softirq":70,"steal":80,"guest":90,"guestnice":100}]`},
		{"cut off", "cpu0 1 2 3 4\ncpu1 1 2 3 4 5", `[{"type":"linux","cpu":0,"user":10,"nice":20,"system":30,"idle":40}]`},
		{"ends at a short line", "cpu0 1 2 3 4\ncpu1 1 x 3 4\ncpu2 1 2 3 4\n", `[{"type":"linux","cpu":0,"user":10,"nice":20,"system":30,"idle":40}]`},
		{"no processors", "cpu\ncpufreq 1 2 3 4\ncpu-1 1 2 3 4\nxcpu1 1 2 3 4\n\n \n", `[]`},
	} {
		got, err := json.Marshal(parseStat(tt.data))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("cpu  1 2 3 4\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n")
	f.Fuzz(func(t *testing.T, data string) {
		list := parseStat(data)
		if n := strings.Count(data, "cpu"); len(list) > n {
			t.Errorf("%d accounts of %d lines at most", len(list), n)
		}
		for _, s := range list {
			if s.CPU < 0 {
				t.Errorf("processor %d", s.CPU)
			}
			if s.GuestNice != nil && (s.Guest == nil || s.IOWait == nil) {
				t.Errorf("%+v lacks a field before its last", s)
			}
		}
	})
}

func BenchmarkParseStat512(b *testing.B) {
	var data strings.Builder
	for i := range 512 {
		fmt.Fprintf(&data, "cpu%d 59818 0 16508 428473 334 0 100 39 0 0\n", i)
	}
	fmt.Fprintf(&data, "intr %s\n", strings.Repeat("0 ", 20000))
	b.SetBytes(int64(data.Len()))
	for b.Loop() {
		if n := len(parseStat(data.String())); n != 512 {
			b.Fatal(n)
		}
	}
}
