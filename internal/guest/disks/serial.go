package disks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/bellhop-vm/bellhop/internal/stuck"
)

// serial returns what identifies a disk, "" if nothing does. Where udev runs
// that is its ID_SERIAL. Elsewhere it is made of the same attributes, and in
// the same form, so that the disks of a guest keep their names when udev comes
// or goes.
func (t *Tree) serial(device string, u *uevent) string {
	if p, ok := t.properties(u); ok {
		return p.serial
	}
	if u != nil && u.partition {
		device = path.Dir(device)
	}
	attribute := func(name string) string {
		value, _ := t.root.ReadLine(device + "/" + name)
		return value
	}
	name := path.Base(device)
	switch {
	case strings.HasPrefix(name, "vd"):
		return t.ask(device, u)
	case strings.HasPrefix(name, "mmcblk"):
		return attribute("device/serial")
	case strings.HasPrefix(name, "nvme"):
		return join(attribute("device/model"), attribute("device/serial"), attribute("nsid"))
	}
	vendor, model := attribute("device/vendor"), attribute("device/model")
	if vendor == "" {
		return ""
	}
	if s, ok := t.usbSerial(device); ok {
		return join(vendor, model, s)
	}
	page, _ := t.root.ReadFile(device + "/device/vpd_pg83")
	if s := serialOfPage83(page, vendor, model); s != "" {
		return s
	}
	page, _ = t.root.ReadFile(device + "/device/vpd_pg80")
	return serialOfPage80(page, vendor, model)
}

// askLimit is how long a disk may take to give its serial number.
const askLimit = 500 * time.Millisecond

// asked are the disks that were asked for their serial numbers. They are those
// of the process, as is the number of threads they may hold up.
var asked struct {
	calls stuck.Calls[string, string]

	mu      sync.Mutex
	answers map[string]answer // by path
}

type answer struct{ sequence, serial string }

// ask returns the serial number of a virtio-blk disk. That is not in the memory
// of the kernel: the device is asked each time, and if its host holds it back
// does not answer. Hence the answer is kept for as long as the disk stays.
func (t *Tree) ask(device string, u *uevent) string {
	name := t.root.Path(device)
	lasting := u != nil && u.sequence != ""
	if lasting {
		asked.mu.Lock()
		a, ok := asked.answers[name]
		asked.mu.Unlock()
		if ok && a.sequence == u.sequence {
			return a.serial
		}
	}
	limit, done := t.wait(askLimit)
	serial, err := asked.calls.Do(name, limit, func() (string, error) {
		text, err := t.root.ReadAttribute(device + "/serial") // its driver writes no line's end
		return string(bytes.TrimSpace(text)), err
	})
	done()
	if err == nil && lasting {
		asked.mu.Lock()
		defer asked.mu.Unlock()
		if asked.answers == nil {
			asked.answers = make(map[string]answer)
		}
		asked.answers[name] = answer{u.sequence, serial}
	}
	return serial
}

// usbSerial returns the serial number of a disk on USB, and which target and
// unit it is behind that number. It is false for disks elsewhere.
func (t *Tree) usbSerial(device string) (string, bool) {
	parts := strings.Split(device, "/")
	for i := 1; i+1 < len(parts); i++ {
		// A USB device is followed by its interface: 3-1, 3-1:1.0.
		if !strings.HasPrefix(parts[i+1], parts[i]+":") || !strings.Contains(parts[i], "-") {
			continue
		}
		s, err := t.root.ReadLine(strings.Join(parts[:i+1], "/") + "/serial")
		if err != nil {
			return "", false
		}
		if _, unit, ok := strings.Cut(scsiName(parts), ":"); ok {
			_, unit, _ = strings.Cut(unit, ":")
			s += "-" + unit
		}
		return s, true
	}
	return "", false
}

// scsiName returns the name of the SCSI device in a path, such as 2:0:4:0.
func scsiName(parts []string) string {
	for i := 1; i < len(parts); i++ {
		if target, ok := strings.CutPrefix(parts[i-1], "target"); ok && strings.HasPrefix(parts[i], target+":") {
			return parts[i]
		}
	}
	return ""
}

// serialOfPage80 makes a serial of the vital product data page 0x80 of SPC, the
// unit serial number.
func serialOfPage80(page []byte, vendor, model string) string {
	if len(page) < 4 || page[1] != 0x80 {
		return ""
	}
	number := strings.Trim(string(page[4:]), " \x00")
	if number == "" {
		return ""
	}
	return "S" + join(vendor, model, number)
}

// The designators of page 0x83 of SPC by type, and how they are encoded.
const (
	vendorSpecific = 0
	t10Vendor      = 1
	eui64          = 2
	naa            = 3

	binaryCode = 1
)

// serialOfPage83 makes a serial of the vital product data page 0x83 of SPC, the
// device identification: its best designator, after a digit for the type.
func serialOfPage83(page []byte, vendor, model string) string {
	if len(page) < 4 || page[1] != 0x83 {
		return ""
	}
	list := page[4:]
	list = list[:min(len(list), int(binary.BigEndian.Uint16(page[2:])))]
	best, serial := -1, ""
	for len(list) >= 4 && len(list) >= 4+int(list[3]) {
		code, kind, association := list[0]&0xf, int(list[1]&0xf), list[1]>>4&3
		id := list[4 : 4+int(list[3])]
		list = list[4+len(id):]
		if association != 0 || len(id) == 0 { // of the port, not of the disk
			continue
		}
		text := strings.Trim(string(id), " \x00")
		if vendor == "ATA" {
			// Disks behind ATA go by what they answer to an IDENTIFY.
			if rest, ok := strings.CutPrefix(string(id), "ATA     "); ok && kind == t10Vendor && len(rest) > 40 {
				return join(rest[:40], rest[40:])
			}
			continue
		}
		switch {
		case kind <= best || kind > naa:
			continue
		case code == binaryCode && kind >= eui64:
			serial = string('0'+rune(kind)) + fmt.Sprintf("%x", id)
		case code == binaryCode || text == "":
			continue
		case kind == vendorSpecific:
			serial = "0" + join(vendor, model, text)
		default:
			serial = string('0'+rune(kind)) + join(text)
		}
		best = kind
	}
	return serial
}

// join makes a name of those parts that are not empty, with underscores between
// them and for all blanks and odd characters in them. It is empty if the last
// part is.
func join(parts ...string) string {
	var b strings.Builder
	for i, p := range parts {
		words := strings.FieldsFunc(p, func(r rune) bool { return r == ' ' || r == 0 || '\t' <= r && r <= '\r' })
		if len(words) == 0 {
			if i == len(parts)-1 {
				return ""
			}
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('_')
		}
		b.WriteString(strings.Map(printable, strings.Join(words, "_")))
	}
	return b.String()
}

func printable(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("#+-.:=@_", r):
		return r
	}
	return '_'
}
