package root

import (
	"iter"
	"strings"
)

// Lines yields the lines of a file that a program has written, without their ends. The
// kernel, as others, ends each one; so a last one without an end has been cut off, in the
// middle of a number perhaps, and is left out.
func Lines(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			line, whole := strings.CutSuffix(line, "\n")
			if !whole || !yield(line) {
				return
			}
		}
	}
}
