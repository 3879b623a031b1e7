// Package mounts lists the file systems that lie on block devices of the guest:
// those that can be frozen and trimmed, and that have disks.
package mounts

import (
	"iter"
	"strconv"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

// A Mount is a file system at the place where it was mounted first.
type Mount struct {
	// Major and Minor are the number of the block device. Both are 0 if it is
	// not known, which happens only on a system without mountinfo.
	Major, Minor uint32
	// Point is the mount point, Type the kernel's name for the format.
	Point, Type string
	// Source is what was mounted as the mounter wrote it, mostly a device node
	// or a link to one.
	Source string
	// ReadOnly is whether the file system can't be written at all, wherever it
	// is mounted. It is not known on a system without mountinfo.
	ReadOnly bool
	// Others are the places where more of the same device is mounted later:
	// bind mounts, subvolumes.
	Others []string
}

// parseMountinfo yields the mounts of /proc/self/mountinfo, those without a
// device included. A line, as proc_pid_mountinfo(5) has it:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//	(1)(2)(3)  (4)   (5)   (6)        (7...)     (9)  (10)      (11)
//
// A line that is not of this form is skipped: it must not hide the others.
func parseMountinfo(text string) iter.Seq[Mount] {
	return func(yield func(Mount) bool) {
		for line := range root.Lines(text) {
			// What comes before is numbers and escaped names, so that the first
			// lone dash is the one that ends the optional fields.
			before, after, ok := strings.Cut(line, " - ")
			if !ok {
				continue
			}
			var place [5]string
			var kind [3]string
			if fields(before, place[:]) < len(place) || fields(after, kind[:]) < 2 {
				continue
			}
			major, minor, ok := parseDevice(place[2])
			if !ok {
				continue
			}
			if !yield(Mount{
				Major: major, Minor: minor,
				Point: unescape(place[4]), Type: unescape(kind[0]), Source: unescape(kind[1]),
				ReadOnly: hasOption(kind[2], "ro"),
			}) {
				return
			}
		}
	}
}

// parseMounts yields the mounts of /proc/self/mounts, without device numbers.
func parseMounts(text string) iter.Seq[Mount] {
	return func(yield func(Mount) bool) {
		for line := range root.Lines(text) {
			var f [3]string
			if fields(line, f[:]) < len(f) || strings.HasPrefix(f[0], "#") {
				continue
			}
			if !yield(Mount{Point: unescape(f[1]), Type: unescape(f[2]), Source: unescape(f[0])}) {
				return
			}
		}
	}
}

func hasOption(list, option string) bool {
	for o := range strings.SplitSeq(list, ",") {
		if o == option {
			return true
		}
	}
	return false
}

// fields fills into with the first words of s and returns how many there were.
// Only blanks separate: in names the kernel escapes those and no other spaces.
func fields(s string, into []string) int {
	isBlank := func(i int) bool { return s[i] == ' ' || s[i] == '\t' }
	n, i := 0, 0
	for n < len(into) {
		for i < len(s) && isBlank(i) {
			i++
		}
		if i == len(s) {
			break
		}
		begin := i
		for i < len(s) && !isBlank(i) {
			i++
		}
		into[n] = s[begin:i]
		n++
	}
	return n
}

// parseDevice parses a device number such as 8:1.
func parseDevice(s string) (major, minor uint32, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	if !ok {
		return 0, 0, false
	}
	ma, err := strconv.ParseUint(a, 10, 32)
	if err != nil {
		return 0, 0, false
	}
	mi, err := strconv.ParseUint(b, 10, 32)
	return uint32(ma), uint32(mi), err == nil
}

// unescape decodes \ooo, three octal digits, by which the kernel writes what
// would end a field or a line. Other backslashes stay.
func unescape(s string) string {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b = append(b, byte(c))
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
