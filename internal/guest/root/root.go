// Package root reads the guest's files below a directory: the root itself in an
// agent, a tree captured from another machine in a test. Paths in the code stay
// what they are on a real system.
package root

import (
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// maxFile bounds a file that is read whole. What the kernel and the
// configuration of a system have to say is far shorter; a device or a log in
// its place must not fill the memory.
const maxFile = 16 << 20

// errLarge is the error of a file beyond maxFile.
var errLarge = errors.New("file too large")

// A Dir is the directory that takes the place of the root. Empty is the root.
type Dir string

// Path returns where name, an absolute path on the guest, really is.
func (d Dir) Path(name string) string {
	if d == "" {
		return name
	}
	return filepath.Join(string(d), name)
}

// ReadFile returns the contents of a file. It does not trust the size that the
// file claims, which in /proc and /sys is wrong, and it opens nothing that
// could make it wait.
func (d Dir) ReadFile(name string) ([]byte, error) {
	f, err := os.OpenFile(d.Path(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = &os.PathError{Op: "read", Path: name, Err: errLarge}
	}
	return data, err
}

// ReadLine returns the contents of an attribute: a short file, without the
// blanks around it.
func (d Dir) ReadLine(name string) (string, error) {
	data, err := d.ReadFile(name)
	return strings.TrimSpace(string(data)), err
}

// Exists reports whether there is something called name.
func (d Dir) Exists(name string) bool {
	_, err := os.Stat(d.Path(name))
	return err == nil
}

// ReadDir returns the names in a directory, sorted.
func (d Dir) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(d.Path(name))
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// Readlink returns what a symbolic link points to.
func (d Dir) Readlink(name string) (string, error) { return os.Readlink(d.Path(name)) }

// Resolve returns name with every symbolic link in it followed, as realpath(3)
// does; absolute links stay below the directory.
func (d Dir) Resolve(name string) (string, error) {
	const maxLinks = 40
	resolved, rest := "/", path.Clean("/"+name)
	for links := 0; rest != "/" && rest != ""; {
		first, remaining, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
		next := path.Join(resolved, first)
		target, err := d.Readlink(next)
		switch {
		case err == nil:
			if links++; links > maxLinks {
				return "", &os.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
			}
			if path.IsAbs(target) {
				resolved = "/"
			}
			rest = path.Join("/", target)
			if !path.IsAbs(target) {
				rest = path.Join(resolved, target)
				resolved = "/"
			}
			rest = path.Join(rest, remaining)
		case errors.Is(err, syscall.EINVAL): // not a link
			resolved, rest = next, "/"+remaining
		default:
			return "", err
		}
	}
	return resolved, nil
}

// Store writes s to an attribute that exists.
func (d Dir) Store(name, s string) error {
	f, err := os.OpenFile(d.Path(name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}
