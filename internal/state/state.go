// Package state keeps what has to outlive the agent: the counter from which
// file handles are made, so that a handle of a former agent is never mistaken
// for one of this agent, and the mark that the file systems are frozen.
//
// File names, contents and modes are the C agent's; either agent may follow
// the other.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// firstHandle is the first file handle of a new state directory.
const firstHandle = 1000

const (
	fileName      = "qga.state"
	counterPrefix = "[global]\nfd_counter="
)

// ErrCommit is the error of a handle that could not be made durable. Errors of
// NextHandle have its text, which is part of the protocol, and wrap the cause.
var ErrCommit = errors.New("failed to commit persistent state to disk")

type commitError struct{ cause error }

func (e *commitError) Error() string   { return ErrCommit.Error() }
func (e *commitError) Unwrap() []error { return []error{ErrCommit, e.cause} }

// State is an open state directory. Its methods may be called concurrently.
type State struct {
	path string // of the counter's file

	mu   sync.Mutex
	file *os.File
	next int64
	buf  []byte
}

// Open reads the state in dir, which must exist, and creates the file
// qga.state if it is not there.
//
// A counter below 1000 or one that cannot be read counts as 1000: handles are
// opaque to clients, and an agent that does not start would be of less use to
// them than one that might repeat a handle of long ago. Whatever else the file
// holds is dropped, as nobody else writes to it.
func Open(dir string) (*State, error) {
	s := &State{path: filepath.Join(dir, fileName)}
	data, err := os.ReadFile(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("error loading persistent state from path: %s, %w", s.path, strerror.Reason(err))
	}
	s.next = parse(string(data))
	if string(data) == string(s.contents()) {
		s.file, err = os.OpenFile(s.path, os.O_RDWR, 0)
	} else {
		err = s.create()
	}
	if err != nil {
		return nil, fmt.Errorf("failed to write persistent state to %s: %w", s.path, strerror.Reason(err))
	}
	return s, nil
}

// Close releases the state directory.
func (s *State) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.Close()
}

// NextHandle returns a file handle that no agent of this state directory
// returned before. The counter is saved before: if that fails, so does
// NextHandle, with ErrCommit, and no handle is used up.
func (s *State) NextHandle() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == math.MaxInt64 {
		return 0, &commitError{errors.New("no more handles")}
	}
	handle := s.next
	s.next++
	if err := s.save(); err != nil {
		s.next = handle
		return 0, &commitError{err}
	}
	return handle, nil
}

// save writes the file in place, in one write. The C agent writes a new file
// and renames it, which on a disk file system costs a journal commit for each
// guest-file-open. That would buy nothing here: a write of a few bytes into
// the page cache cannot be torn by the death of the agent, and the contents
// never get shorter, so there is nothing to truncate. A power cut may tear it,
// but that ends the file handles too, and it clears /var/run.
//
// If somebody removed the file, or put another in its place, the descriptor
// leads to a file without a name, which the next agent would not find.
func (s *State) save() error {
	if unlinked(s.file) {
		old := s.file
		if err := s.create(); err != nil {
			return err
		}
		old.Close()
		return nil
	}
	_, err := s.file.WriteAt(s.contents(), 0)
	return err
}

// create writes a new file and puts it in the place of the old one. The mode
// is left to the umask, as in the C agent.
func (s *State) create() error {
	temp := s.path + "." + strconv.Itoa(os.Getpid())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		// A former agent with our process id died between here and the rename.
		if err = os.Remove(temp); err == nil {
			f, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(s.contents())
	if errClose := f.Close(); err == nil {
		err = errClose
	}
	if err == nil {
		err = os.Rename(temp, s.path)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	f, err = os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.file = f
	return nil
}

// contents is the file as it should be; it is valid until the next call.
func (s *State) contents() []byte {
	s.buf = append(s.buf[:0], counterPrefix...)
	s.buf = strconv.AppendInt(s.buf, s.next, 10)
	s.buf = append(s.buf, '\n')
	return s.buf
}

// parse returns the counter in a file's contents.
func parse(data string) int64 {
	next := int64(firstHandle)
	var group string
	for line := range strings.Lines(data) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			group = line
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		if group != "[global]" || strings.TrimSpace(key) != "fd_counter" {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil || n < firstHandle {
			n = firstHandle
		}
		next = n
	}
	return next
}

// MarkerPath returns the path of the file in dir whose presence says that the
// file systems are frozen. Removing it by hand ends that state for the next
// agent.
//
// The marker is apart from State because an agent has to look for it before it
// opens the state: that may write, and would wait if dir itself were frozen.
func MarkerPath(dir string) string { return filepath.Join(dir, fileName+".isfrozen") }

// Frozen reports whether an agent with the state directory dir froze the file
// systems and did not thaw them. Only the marker's absence means no; any other
// failure to look for it is an error, because both wrong answers do harm.
func Frozen(dir string) (bool, error) {
	_, err := os.Lstat(MarkerPath(dir))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return false, nil
	}
	return false, err
}

// SetFrozen creates or removes the marker in dir. Neither is an error when the
// marker is as wanted already.
func SetFrozen(dir string, frozen bool) error {
	path := MarkerPath(dir)
	if !frozen {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
