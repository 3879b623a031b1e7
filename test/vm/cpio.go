//go:build linux

package vm

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
)

// File types as cpio, like stat(2), has them above the permission bits.
const (
	typeDir     = 0o040000
	typeRegular = 0o100000
	typeSymlink = 0o120000
)

// archive is a cpio archive in the "newc" format, the one the kernel unpacks
// as an initramfs. Everything in it belongs to root. The zero value is empty.
type archive struct {
	buf   bytes.Buffer
	inode int
	dirs  map[string]bool
}

// add adds a file: a regular one, or a symbolic link if mode has
// [fs.ModeSymlink], whose target data is then. The directories above it are
// made as needed. A later file takes the place of an earlier one of its name,
// for this is how the kernel unpacks it.
func (a *archive) add(name string, mode fs.FileMode, data []byte) {
	name = clean(name)
	a.mkdir(path.Dir(name))
	kind := typeRegular
	if mode&fs.ModeSymlink != 0 {
		kind = typeSymlink
	}
	a.entry(name, kind|int(mode.Perm()), data)
}

// mkdir adds a directory and those above it that are not there yet, but not
// the root, which the kernel has made.
func (a *archive) mkdir(name string) {
	name = clean(name)
	if name == "." || a.dirs[name] {
		return
	}
	a.mkdir(path.Dir(name))
	if a.dirs == nil {
		a.dirs = make(map[string]bool)
	}
	a.dirs[name] = true
	a.entry(name, typeDir|0o755, nil)
}

// bytes ends the archive and returns it. Nothing may be added afterwards.
func (a *archive) bytes() []byte {
	a.inode = -1 // the trailer has number 0
	a.entry("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}

// entry writes a header of fourteen fields in hexadecimal, the name with a
// NUL, and the data, header and data each filled up to four bytes.
func (a *archive) entry(name string, mode int, data []byte) {
	const (
		magic = "070701"
		uid   = 0
		gid   = 0
		links = 1
		mtime = 0
		dev   = 0
		check = 0
	)
	a.inode++
	fmt.Fprintf(&a.buf, "%s%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", magic,
		a.inode, mode, uid, gid, links, mtime, len(data), dev, dev, dev, dev, len(name)+1, check, name)
	a.pad()
	a.buf.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

// clean returns the name relative to the root, as the archive has it.
func clean(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}
