package root

import "slices"

// ReadDir returns the names in a directory, sorted.
func (d Dir) ReadDir(name string) ([]string, error) {
	dir, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var names []string
	e := entries{dir: dir}
	for {
		name, err := e.next()
		if err != nil || name == nil {
			slices.Sort(names)
			return names, err
		}
		names = append(names, string(name))
	}
}
