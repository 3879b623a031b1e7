//go:build !linux

package root

import "os"

// ReadDir returns the names in a directory, sorted.
func (d Dir) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(d.Path(name))
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}
