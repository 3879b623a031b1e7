package root

// ReadDir returns the names in a directory, sorted.
func (d Dir) ReadDir(name string) ([]string, error) {
	dir, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Names()
}
