//go:build unix

package stuck

import (
	"bytes"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// programLimit is how long the file of a program is waited for.
var programLimit = DiskLimit

// programs are the files, and directories, that are being looked at. When too many do
// not answer no program can be started any more.
var programs = Calls[string, struct{}]{Most: 64}

// Executable returns why a file cannot be executed, as access(2) does, or nil; and
// ErrStuck if its file system does not answer.
//
// It has to be called before a program is started. The kernel reads the beginning
// of the file when the program takes the place of the process that was forked for
// it, and until then this process stands still, with all of its threads that run Go
// code. What is waited for here need not be there.
func Executable(file string) error {
	// A directory that does not answer counts once, whatever is looked for in it.
	dir := path.Dir(file) + "/"
	if _, err := programs.Do(dir, programLimit, func() (struct{}, error) {
		var st unix.Stat_t
		_ = unix.Stat(dir, &st) // what is wrong with it the file will tell
		return struct{}{}, nil
	}); err != nil {
		return err
	}
	_, err := programs.Do(file, programLimit, func() (struct{}, error) {
		return struct{}{}, executable(file)
	})
	return err
}

func executable(file string) error {
	for {
		// With the rights that are in force, as for the program; access(2) has others.
		if err := unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS); err != unix.EINTR {
			if err == nil {
				readBeginning(file, true)
			}
			return err
		}
	}
}

// readBeginning has the kernel read what it will read of a program, and of the
// interpreter of a script. Whatever fails will fail again when it is started.
func readBeginning(file string, script bool) {
	// To open anything but a file might do something.
	var st unix.Stat_t
	if unix.Stat(file, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var head [256]byte // BINPRM_BUF_SIZE of linux/binfmts.h
	n, err := unix.Pread(fd, head[:], 0)
	if err != nil {
		return
	}
	line, isScript := bytes.CutPrefix(head[:n], []byte("#!"))
	if !isScript || !script {
		return
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if words := strings.Fields(string(line)); len(words) > 0 {
		readBeginning(words[0], false)
	}
}
