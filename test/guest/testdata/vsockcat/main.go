//go:build linux

// Vsockcat connects its standard input and output to a vsock address, CID and
// PORT. It ends when the other side closes the connection.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vsockcat:", err)
		os.Exit(1)
	}
}

func run() error {
	var addr [2]uint32
	for i := range addr {
		n, err := strconv.ParseUint(os.Args[i+1], 10, 32)
		if err != nil {
			return err
		}
		addr[i] = uint32(n)
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: addr[0], Port: addr[1]}); err != nil {
		return err
	}
	conn := os.NewFile(uintptr(fd), "vsock")
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		_ = unix.Shutdown(fd, unix.SHUT_WR)
	}()
	_, err = io.Copy(os.Stdout, conn)
	return err
}
