package clock

import (
	"strconv"
	"strings"
)

// An adjtime is what /etc/adjtime says about the hardware clock; see
// adjtime_config(5). The zero value is what holds without the file.
type adjtime struct {
	// local says that the clock shows local time instead of UTC.
	local bool
	// drifts says that somebody keeps account of how wrong the clock goes.
	drifts bool
}

// parseAdjtime skips what it does not understand.
func parseAdjtime(text string) adjtime {
	var a adjtime
	lines := strings.SplitN(text, "\n", 4)
	if fields := strings.Fields(lines[0]); len(fields) > 0 {
		drift, err := strconv.ParseFloat(fields[0], 64)
		a.drifts = err == nil && drift != 0
	}
	if len(lines) > 2 {
		a.local = strings.TrimSpace(lines[2]) == "LOCAL"
	}
	return a
}
