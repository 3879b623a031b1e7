package accounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/qga"
)

// maxKeyFile bounds an authorized_keys file: a hundred thousand keys fit in.
const maxKeyFile = 16 << 20

// What an authorized_keys file cannot be.
var (
	errNotRegular = errors.New("not a regular file")
	errLarge      = errors.New("file too large")
)

// Commands returns the commands of this package.
func Commands(a *Accounts) []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.SetUserPassword, a.setPassword),
		agent.Handle(qga.SSHGetAuthorizedKeys, a.sshGet),
		agent.Handle(qga.SSHAddAuthorizedKeys, a.sshAdd),
		agent.Handle(qga.SSHRemoveAuthorizedKeys, a.sshRemove),
	}
}

func (a *Accounts) sshGet(ctx context.Context, args qga.SSHGetAuthorizedKeysArgs) (qga.AuthorizedKeys, error) {
	u, err := a.lookup(ctx, args.Username)
	if err != nil {
		return qga.AuthorizedKeys{}, err
	}
	var text string
	err = a.visit(ctx, u, func() (err error) {
		text, err = a.keyFile(u).read()
		return err
	})
	if err != nil {
		return qga.AuthorizedKeys{}, err
	}
	return qga.AuthorizedKeys{Keys: parseKeys(text)}, nil
}

func (a *Accounts) sshAdd(ctx context.Context, args qga.SSHAddAuthorizedKeysArgs) (qga.Empty, error) {
	if err := checkKeys(args.Keys); err != nil {
		return qga.Empty{}, err
	}
	u, err := a.lookup(ctx, args.Username)
	if err != nil {
		return qga.Empty{}, err
	}
	reset := args.Reset != nil && *args.Reset
	return qga.Empty{}, a.visit(ctx, u, func() error {
		f := a.keyFile(u)
		var lines []string
		if !reset {
			text, err := f.read()
			// What the user himself cannot read lets nobody in: sshd looks
			// with his eyes too. Like a file that is not there it is replaced.
			// What cannot be read for another reason may hold keys.
			if err != nil && !absent(err) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.ELOOP) {
				return err
			}
			lines = splitLines(text)
		}
		if err := f.makeDir(); err != nil {
			return err
		}
		return f.write(joinLines(addKeys(lines, args.Keys)))
	})
}

func (a *Accounts) sshRemove(ctx context.Context, args qga.SSHRemoveAuthorizedKeysArgs) (qga.Empty, error) {
	if err := checkKeys(args.Keys); err != nil {
		return qga.Empty{}, err
	}
	u, err := a.lookup(ctx, args.Username)
	if err != nil {
		return qga.Empty{}, err
	}
	return qga.Empty{}, a.visit(ctx, u, func() error {
		f := a.keyFile(u)
		text, err := f.read()
		if absent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return f.write(joinLines(removeKeys(splitLines(text), args.Keys)))
	})
}

// absent reports whether err says that there is no such file.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// A keyFile is somebody's authorized_keys. Its methods are for visitors of the
// user's home only.
type keyFile struct {
	owner user
	name  string // what the guest calls it
	real  string // where it is
}

func (a *Accounts) keyFile(u user) keyFile {
	name := path.Join(u.home, ".ssh", "authorized_keys")
	return keyFile{owner: u, name: name, real: a.root.Path(name)}
}

func (f keyFile) read() (string, error) {
	// The user may have left a pipe or a terminal there to wait for us.
	file, err := os.OpenFile(f.real, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return "", fmt.Errorf("failed to read '%s': Failed to open file \u201C%s\u201D: %w", f.name, f.name, strerror.Reason(err))
	}
	defer file.Close()
	data, err := readRegular(file)
	if err != nil {
		return "", fmt.Errorf("failed to read '%s': Error reading file \u201C%s\u201D: %w", f.name, f.name, strerror.Reason(err))
	}
	return string(data), nil
}

func readRegular(file *os.File) ([]byte, error) {
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, syscall.EISDIR
	case !info.Mode().IsRegular():
		return nil, errNotRegular
	}
	data, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = errLarge
	}
	return data, err
}

// makeDir makes the directory of the file if there is none.
func (f keyFile) makeDir() error {
	info, err := os.Stat(filepath.Dir(f.real))
	if err == nil && info.IsDir() {
		return nil
	}
	if err := os.Mkdir(filepath.Dir(f.real), 0o700); err != nil {
		return fmt.Errorf("failed to create directory '%s': %w", path.Dir(f.name), strerror.Reason(err))
	}
	// The home may give its own group to what is made in it.
	if err := os.Chown(filepath.Dir(f.real), int(f.owner.uid), int(f.owner.gid)); err != nil {
		return fmt.Errorf("failed to set ownership of directory '%s': %w", path.Dir(f.name), strerror.Reason(err))
	}
	return nil
}

// write replaces the file as a whole, so that nobody is ever locked out because
// sshd looked in the middle, and so that other names of the file, if it has any,
// keep what they have.
func (f keyFile) write(text string) error {
	temp, err := os.CreateTemp(filepath.Dir(f.real), filepath.Base(f.real)+".*")
	if err != nil {
		return fmt.Errorf("failed to write to '%s': Failed to create file \u201C%s\u201D: %w", f.name, f.tempName(err), strerror.Reason(err))
	}
	if err = f.fill(temp, text); err == nil {
		if err = rename(temp.Name(), f.real); err == nil {
			return nil
		}
		err = fmt.Errorf("failed to write to '%s': Failed to rename file \u201C%s\u201D to \u201C%[1]s\u201D: g_rename() failed: %[3]w",
			f.name, f.beside(temp.Name()), strerror.Reason(err))
	}
	_ = os.Remove(temp.Name())
	return err
}

// rename is that of package os without its own words for a directory in the way.
func rename(from, to string) error {
	for {
		if err := syscall.Rename(from, to); err != syscall.EINTR {
			return err
		}
	}
}

// tempName returns the guest's name for the file that err is about.
func (f keyFile) tempName(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return f.beside(e.Path)
	}
	return f.name
}

// beside returns the guest's name for a file in the same directory.
func (f keyFile) beside(file string) string {
	return path.Join(path.Dir(f.name), filepath.Base(file))
}

// fill makes temp what the file shall be.
func (f keyFile) fill(temp *os.File, text string) error {
	defer temp.Close()
	// The directory may give its own group to what is made in it.
	if err := temp.Chown(int(f.owner.uid), int(f.owner.gid)); err != nil {
		return fmt.Errorf("failed to set ownership of directory '%s': %w", f.name, strerror.Reason(err))
	}
	if err := temp.Chmod(0o600); err != nil {
		return fmt.Errorf("failed to set permissions of '%s': %w", f.name, strerror.Reason(err))
	}
	call := "write"
	_, err := temp.WriteString(text)
	if err == nil {
		call, err = "fsync", temp.Sync()
	}
	if err == nil {
		call, err = "close", temp.Close()
	}
	if err != nil {
		return fmt.Errorf("failed to write to '%s': Failed to write file \u201C%s\u201D: %s() failed: %w",
			f.name, f.beside(temp.Name()), call, strerror.Reason(err))
	}
	return nil
}
