//go:build unix

package stuck

import "time"

// SetProgramLimit sets how long the file of a program is waited for, and returns what
// to call to undo that.
func SetProgramLimit(limit time.Duration) (undo func()) {
	before := programLimit
	programLimit = limit
	return func() { programLimit = before }
}
