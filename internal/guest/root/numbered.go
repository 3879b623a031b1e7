package root

import (
	"slices"
	"strconv"
	"strings"
)

// Numbered returns the N of all entries of a directory that are called prefixN,
// in ascending order. It is how sysfs enumerates processors, memory blocks and
// the like, among other names such as cpufreq.
func (d Dir) Numbered(name, prefix string) ([]uint64, error) {
	names, err := d.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, prefix)
		n, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil && strconv.FormatUint(n, 10) == digits {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}
