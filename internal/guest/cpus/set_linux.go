package cpus

import (
	"slices"
	"strconv"
	"strings"
)

// A set holds numbers of processors, as spans in ascending order.
type set []span

// A span is the numbers from first to last.
type span struct{ first, last int64 }

// parseSet reads a set as the kernel writes one, such as "0-3,8,10-11\n"; see the
// format of %*pbl in core-api/printk-formats. It is not ok if it is anything else, or
// does not have its end.
func parseSet(text string) (s set, ok bool) {
	text, ok = strings.CutSuffix(text, "\n")
	if !ok {
		return nil, false
	}
	s = set{}
	if text == "" {
		return s, true
	}
	next := int64(0) // the least that may come
	for part := range strings.SplitSeq(text, ",") {
		first, last, isSpan := strings.Cut(part, "-")
		if !isSpan {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 32)
		to, err2 := strconv.ParseUint(last, 10, 32)
		if err1 != nil || err2 != nil || int64(from) < next || to < from {
			return nil, false
		}
		s = append(s, span{int64(from), int64(to)})
		next = int64(to) + 1
	}
	return s, true
}

// has reports whether n is in the set.
func (s set) has(n int64) bool {
	_, found := slices.BinarySearchFunc(s, n, func(r span, n int64) int {
		switch {
		case n < r.first:
			return 1
		case n > r.last:
			return -1
		}
		return 0
	})
	return found
}
