//go:build linux

package main

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// floorCommand makes this program the floor's server.
const floorCommand = "serve-floor"

// serveFloor answers requests on a unix socket without a thought: those for
// file contents with a reply of the given size, all others with a number that
// passes for a handle.
func serveFloor(socket, size string) error {
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	small := []byte(`{"return": 1000}` + "\n")
	large := append(bytes.Repeat([]byte("A"), max(n-1, 0)), '\n')

	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 16); err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	var replies []byte
	for {
		client, _, err := unix.Accept(fd)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		for {
			n, err := unix.Read(client, buf)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				break
			}
			reply := small
			if bytes.Contains(buf[:min(n, 64)], []byte("guest-file-read")) {
				reply = large
			}
			replies = replies[:0]
			for range bytes.Count(buf[:n], newline) {
				replies = append(replies, reply...)
			}
			c := conn{fd: client}
			c.send(replies)
		}
		unix.Close(client)
	}
}
