// Package guesttest gives tests the file system of a guest: one that is made up,
// or one that capture.sh, which see, has captured from a real guest.
//
// In testdata are, each with the answers of the C agent 11.1.3 in the same guest:
//
//	virtio       Debian 13 on virtio-blk: partitions, ext4, vfat, swap, btrfs on
//	             a disk without a serial number, a bind mount; two processors of
//	             four, memory that can grow
//	lvm-on-luks  Debian 13 with two disks on virtio-scsi, one of which has a
//	             world wide name: logical volumes on an encrypted partition, one
//	             of them striped over the other disk as well
//	md-on-nvme   Debian 13 with two NVMe disks: RAID 1, and RAID 0 with a
//	             partition on it
//	no-udev      busybox on an initramfs, with a virtio-blk and an NVMe disk,
//	             without udev, utmp and os-release
//
// The disks of s390x were not captured, but follow the kernel's
// Documentation/arch/s390/driver-model.rst; there no C agent was asked, and the
// answers are what QEMU's documentation makes of that.
package guesttest

import (
	"bytes"
	"embed"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

//go:embed testdata
var testdata embed.FS

// Tree makes files, which last as long as the test, by their names. A name that
// ends in a slash is that of a directory; contents that begin with "->" are what
// a symbolic link points to.
func Tree(t testing.TB, files map[string]string) root.Dir {
	t.Helper()
	dir := root.Dir(t.TempDir())
	for name, contents := range files {
		path := dir.Path(name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		target, isLink := strings.CutPrefix(contents, "->")
		switch {
		case err != nil:
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case isLink:
			err = os.Symlink(target, path)
		default:
			err = os.WriteFile(path, []byte(contents), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A Guest is one that was captured.
type Guest struct {
	testing.TB
	Root root.Dir

	answers map[string]string
}

// Captured returns a guest of testdata by its name.
func Captured(t testing.TB, name string) Guest {
	t.Helper()
	data, err := testdata.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	files, answers := parse(t, string(data))
	return Guest{TB: t, Root: Tree(t, files), answers: answers}
}

// parse returns the files, in the form of Tree, and the answers, by command.
func parse(t testing.TB, text string) (files, answers map[string]string) {
	t.Helper()
	files, answers = make(map[string]string), make(map[string]string)
	text, ok := strings.CutPrefix(text, "-- ")
	if !ok {
		t.Fatal("no entry at the beginning")
	}
	for entry := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n-- ") {
		head, contents, ok := strings.Cut(entry+"\n", " --\n")
		if !ok {
			t.Fatalf("no entry: %q", entry)
		}
		name, isHex := strings.CutSuffix(head, " (hex)")
		if isHex {
			binary, err := hex.DecodeString(strings.ReplaceAll(contents, "\n", ""))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			contents = string(binary)
		}
		if name, target, ok := strings.Cut(head, " -> "); ok {
			files[name] = "->" + target
			continue
		}
		if command, ok := strings.CutPrefix(name, "answers/"); ok {
			answers[command] = contents
			continue
		}
		files[name] = contents
	}
	return files, answers
}

// Answer decodes what the C agent replied to a command. No member may be
// unknown.
func (g Guest) Answer(command string, into any) {
	g.Helper()
	answer, ok := g.answers[command]
	if !ok {
		g.Fatalf("no answer to %s", command)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(answer)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		g.Fatalf("%s: %v", command, err)
	}
}

// JSON returns the form in which replies are compared, or the text of err.
func JSON(t testing.TB, reply any, err error) string {
	t.Helper()
	if err != nil {
		return err.Error()
	}
	data, err := json.Marshal(reply)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
