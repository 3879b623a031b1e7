package guesttest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A HangingFS is a file system whose server answers some questions and leaves
// others unanswered, until it is told to go on. The kernel waits for it as it waits
// for a server or a disk that is gone.
type HangingFS struct {
	// File can be opened, read and written by whoever waits for it. It is an
	// executable, as far as its mode goes.
	File string
	// Lost is not there, which one learns later.
	Lost string

	device *os.File
	mu     sync.Mutex
	alive  bool
	held   []held
}

// A held question is one that has not been answered.
type held struct {
	unique uint64
	errno  unix.Errno
	answer []any
}

// NewHangingFS mounts one for the time of the test. It skips the test where that is
// not allowed.
func NewHangingFS(t *testing.T) *HangingFS {
	t.Helper()
	// Not in the care of the poller: the server has a thread of its own.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no FUSE:", err)
	}
	dir := t.TempDir()
	fs := &HangingFS{
		File: filepath.Join(dir, hangingFile), Lost: filepath.Join(dir, "lost"),
		device: os.NewFile(uintptr(fd), "/dev/fuse"),
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
	if err := unix.Mount("hanging", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		fs.device.Close()
		t.Skip("no FUSE:", err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		fs.serve()
	}()
	t.Cleanup(func() {
		fs.Answer() // or the unmounting waits, too
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		<-served
		fs.device.Close()
	})
	return fs
}

// Answer has the server answer all that it has left unanswered, and from now on
// whatever it is asked.
func (fs *HangingFS) Answer() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.alive = true
	for _, h := range fs.held {
		fs.reply(h)
	}
	fs.held = nil
}

// Waiting returns how many questions have not been answered.
func (fs *HangingFS) Waiting() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.held)
}

// What follows is the protocol of linux/fuse.h.

const (
	hangingFile = "file"
	rootNode    = 1
	fileNode    = 2
)

type (
	inHeader struct {
		Len, Opcode    uint32
		Unique, NodeID uint64
		_              [4]uint32
	}
	outHeader struct {
		Len    uint32
		Error  int32
		Unique uint64
	}
	attributes struct {
		Ino, Size, Blocks, _, _, _          uint64
		_, _, _, Mode, Links, _, _, _, _, _ uint32
	}
	entryOut struct {
		NodeID, _, _, _ uint64
		_, _            uint32
		Attributes      attributes
	}
	attrOut struct {
		_, _       uint64
		Attributes attributes
	}
	initOut struct {
		Major, Minor, _, Flags, _, MaxWrite uint32
		_                                   [10]uint32
	}
	openOut struct {
		Handle   uint64
		Flags, _ uint32
	}
	writeOut struct{ Size, _ uint32 }
)

func attributesOf(node uint64) attributes {
	if node == rootNode {
		return attributes{Ino: node, Mode: unix.S_IFDIR | 0o755, Links: 2}
	}
	return attributes{Ino: node, Mode: unix.S_IFREG | 0o755, Links: 1, Size: 1 << 20}
}

// serve answers questions until the file system is unmounted.
func (fs *HangingFS) serve() {
	const (
		lookup, forget, getattr, open, read, write = 1, 2, 3, 14, 15, 16
		release, flush, start, interrupt, forgets  = 18, 25, 26, 36, 42
		directIO, parallelLookups                  = 1, 1 << 18
	)
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(int(fs.device.Fd()), buf)
		if err == unix.EINTR || err == unix.ENOENT {
			continue
		}
		var in inHeader
		if err != nil || binary.Read(bytes.NewReader(buf[:n]), binary.NativeEndian, &in) != nil {
			return
		}
		body := buf[binary.Size(in):n]
		now := func(errno unix.Errno, answer ...any) {
			fs.mu.Lock()
			defer fs.mu.Unlock()
			fs.reply(held{in.Unique, errno, answer})
		}
		later := func(errno unix.Errno, answer ...any) {
			fs.mu.Lock()
			defer fs.mu.Unlock()
			if h := (held{in.Unique, errno, answer}); fs.alive {
				fs.reply(h)
			} else {
				fs.held = append(fs.held, h)
			}
		}
		switch in.Opcode {
		case start:
			now(0, initOut{Major: 7, Minor: 31, Flags: parallelLookups, MaxWrite: 1 << 17})
		case lookup:
			if string(bytes.TrimRight(body, "\x00")) == hangingFile {
				now(0, entryOut{NodeID: fileNode, Attributes: attributesOf(fileNode)})
			} else {
				later(unix.ENOENT)
			}
		case getattr:
			now(0, attrOut{Attributes: attributesOf(in.NodeID)})
		case open:
			now(0, openOut{Flags: directIO})
		case read:
			later(0) // the end of the file
		case write:
			const sizeAt = 16 // in struct fuse_write_in
			later(0, writeOut{Size: binary.NativeEndian.Uint32(body[sizeAt:])})
		case release, flush:
			now(0)
		case forget, forgets, interrupt:
		default:
			now(unix.ENOSYS)
		}
	}
}

func (fs *HangingFS) reply(h held) {
	var body bytes.Buffer
	for _, a := range h.answer {
		_ = binary.Write(&body, binary.NativeEndian, a) // to memory
	}
	header := outHeader{Len: uint32(binary.Size(outHeader{}) + body.Len()), Error: -int32(h.errno), Unique: h.unique}
	var out bytes.Buffer
	_ = binary.Write(&out, binary.NativeEndian, header)
	out.Write(body.Bytes())
	_, _ = unix.Write(int(fs.device.Fd()), out.Bytes()) // who asked may be gone
}
