//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"text/tabwriter"
)

// An aim is what a figure should be; the zero value is none.
type aim struct {
	bound float64
	// atLeast makes it a lower bound, not an upper one.
	atLeast bool
	// absolute bounds our figure itself, in the row's unit, and not its ratio
	// to that of the C agent.
	absolute bool
}

func atLeast(ratio float64) aim { return aim{bound: ratio, atLeast: true} }
func atMost(ratio float64) aim  { return aim{bound: ratio} }
func below(value float64) aim   { return aim{bound: value, absolute: true} }

// text returns the aim as it is printed; empty for none.
func (a aim) text(unit string) string {
	if a == (aim{}) {
		return ""
	}
	op := "<="
	if a.atLeast {
		op = ">="
	}
	if !a.absolute {
		unit = "x"
	} else {
		unit = " " + unit
	}
	return op + " " + strconv.FormatFloat(a.bound, 'f', -1, 64) + unit
}

func (a aim) met(value, ratio float64) bool {
	if a.absolute {
		ratio = value
	}
	if a.atLeast {
		return ratio >= a.bound
	}
	return ratio <= a.bound
}

// A result is a row of the report. Figures are nil where there are none.
type result struct {
	Name  string   `json:"name"`
	Unit  string   `json:"unit"`
	C     *figure  `json:"c"`
	Ours  *figure  `json:"ours"`
	Floor *figure  `json:"floor,omitempty"`
	Ratio *float64 `json:"ratio,omitempty"`
	Aim   string   `json:"aim,omitempty"`
	Met   *bool    `json:"met,omitempty"`
}

// A figure is what became of one contender's samples.
type figure struct {
	Value float64 `json:"value"`
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
}

func newResult(r row, samples [contenderCount][]float64) result {
	q := r.quantile
	if q == 0 {
		q = 0.5
	}
	out := result{
		Name: r.name, Unit: r.unit,
		C: newFigure(samples[theC], q), Ours: newFigure(samples[ours], q), Floor: newFigure(samples[floor], q),
		Aim: r.aim.text(r.unit),
	}
	if out.C == nil || out.Ours == nil {
		return out
	}
	ratio := math.NaN()
	if out.C.Value > 0 {
		ratio = out.Ours.Value / out.C.Value
		out.Ratio = &ratio
	}
	if r.aim != (aim{}) {
		met := r.aim.met(out.Ours.Value, ratio)
		out.Met = &met
	}
	return out
}

func newFigure(samples []float64, quantile float64) *figure {
	if len(samples) == 0 {
		return nil
	}
	slices.Sort(samples)
	last := float64(len(samples) - 1)
	low, high := samples[int(last*quantile)], samples[int(math.Ceil(last*quantile))]
	return &figure{Value: (low + high) / 2, Min: samples[0], Max: samples[len(samples)-1]}
}

// A report is all that was found out.
type report struct {
	Conditions []string `json:"conditions"`
	Results    []result `json:"results"`
}

func (r report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	return e.Encode(r)
}

func (r report) writeTable(out io.Writer) error {
	for _, c := range r.Conditions {
		fmt.Fprintln(out, c)
	}
	fmt.Fprintln(out)
	// Numbers are aligned to the right, which tabwriter does for all cells or
	// none: the names are padded here.
	width := 0
	for _, l := range r.Results {
		width = max(width, len(l.Name))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%-*s\tC\tours\tfloor\tunit\tours/C\taim\tmet\t\n", width, "")
	for _, l := range r.Results {
		ratio, met := "", ""
		if l.Ratio != nil {
			ratio = number(*l.Ratio) + "x"
		}
		if l.Met != nil {
			met = "NO"
			if *l.Met {
				met = "yes"
			}
		}
		fmt.Fprintf(w, "%-*s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", width, l.Name, l.C, l.Ours, l.Floor, l.Unit, ratio, l.Aim, met)
	}
	return w.Flush()
}

// String returns the figure as it is printed in the table.
func (f *figure) String() string {
	if f == nil {
		return "-"
	}
	return number(f.Value)
}

// number prints three digits or more.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
