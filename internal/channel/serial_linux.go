package channel

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// OpenSerial opens the serial line at path and makes it raw. When it hangs up
// it is opened again.
func OpenSerial(path string) (*Port, error) {
	p := &Port{path: path, open: openLine}
	return p, p.reopen()
}

func openLine(path string) (*os.File, error) {
	f, err := openDevice(path)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err == nil {
		ctlErr := raw.Control(func(fd uintptr) { err = makeRaw(int(fd)) })
		err = errors.Join(err, ctlErr)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// makeRaw sets the line such that every byte passes as it is: 38400 baud with
// whatever framing the line has, no echo, no flow control, no translation.
func makeRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.IGNPAR | unix.PARMRK | unix.INPCK | unix.ISTRIP |
		unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON | unix.IXOFF | unix.IXANY | unix.IMAXBEL
	t.Oflag, t.Lflag = 0, 0
	t.Cflag = t.Cflag&^unix.CBAUD | unix.B38400 | unix.CREAD
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	// What came before the agent did is not for it.
	if err := unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH); err != nil {
		return err
	}
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
