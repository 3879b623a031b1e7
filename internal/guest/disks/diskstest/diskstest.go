// Package diskstest builds trees of sysfs for tests, by hand or as captured from
// a guest.
package diskstest

import (
	"embed"
	"encoding/json"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

// The guest was made to have a disk on every bus that QEMU emulates on x86. The
// results beside it are what the C agent, 11.1.3, had to say in it.
//
//go:embed testdata
var testdata embed.FS

// A Tree is a root directory with a /sys.
type Tree struct {
	testing.TB
	Root root.Dir
}

// New returns an empty tree that lasts as long as the test.
func New(t testing.TB) Tree {
	t.Helper()
	tree := Tree{t, root.Dir(t.TempDir())}
	tree.Dir("/sys/block")
	tree.Dir("/sys/dev/block")
	return tree
}

// Dir makes a directory.
func (t Tree) Dir(name string) {
	t.Helper()
	if err := os.MkdirAll(t.Root.Path(name), 0o755); err != nil {
		t.Fatal(err)
	}
}

// File makes a file.
func (t Tree) File(name, content string) {
	t.Helper()
	t.Dir(path.Dir(name))
	if err := os.WriteFile(t.Root.Path(name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Link makes a symbolic link, relative as those of sysfs are.
func (t Tree) Link(name, target string) {
	t.Helper()
	t.Dir(path.Dir(name))
	target, err := filepath.Rel(path.Dir(name), target)
	if err == nil {
		err = os.Symlink(target, t.Root.Path(name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Driver binds a device to a driver.
func (t Tree) Driver(device, name string) {
	t.Helper()
	t.Link(device+"/driver", "/sys/bus/any/drivers/"+name)
}

// Disk makes a block device with its major:minor number, and with slaves, given
// by their paths.
func (t Tree) Disk(device, number string, slaves ...string) {
	t.Helper()
	t.block(device, number, "disk")
	t.Link("/sys/block/"+path.Base(device), device)
	t.Dir(device + "/slaves")
	for _, s := range slaves {
		t.Link(device+"/slaves/"+path.Base(s), s)
	}
}

// Partition makes a partition.
func (t Tree) Partition(device, number string) {
	t.Helper()
	t.block(device, number, "partition")
	t.File(device+"/partition", "1\n")
}

func (t Tree) block(device, number, kind string) {
	t.Helper()
	major, minor, _ := strings.Cut(number, ":")
	name := path.Base(device)
	t.File(device+"/uevent", "MAJOR="+major+"\nMINOR="+minor+"\nDEVNAME="+name+"\nDEVTYPE="+kind+"\n")
	t.File(device+"/dev", number+"\n")
	t.File(device+"/size", "2048\n")
	t.Link("/sys/dev/block/"+number, device)
	t.Link("/sys/class/block/"+name, device)
}

// Udev puts properties, such as ID_SERIAL=X, of a device into udev's database.
func (t Tree) Udev(number string, properties ...string) {
	t.Helper()
	text := "S:disk/by-path/any\nI:1234567\n"
	for _, p := range properties {
		text += "E:" + p + "\n"
	}
	t.File("/run/udev/data/b"+number, text+"G:systemd\nV:1\n")
}

// Guest returns the tree of the guest that was captured. With mapped it is as
// after logical volume, RAID and encrypted volume were made.
func Guest(t testing.TB, mapped bool) Tree {
	t.Helper()
	var guest struct {
		Block map[string]struct {
			Path, Number, Size string
			Slaves             []string
		}
		Udev      map[string][]string
		Drivers   map[string]string
		Siblings  map[string][]string
		Mountinfo []string
	}
	Golden(t, "machine", &guest)
	tree := New(t)
	for _, name := range slices.Sorted(maps.Keys(guest.Block)) {
		b := guest.Block[name]
		var slaves []string
		for _, s := range b.Slaves {
			slaves = append(slaves, guest.Block[s].Path)
		}
		switch {
		case b.Slaves == nil:
			tree.Partition(b.Path, b.Number)
		case mapped || len(slaves) == 0:
			tree.Disk(b.Path, b.Number, slaves...)
		default:
			continue
		}
		tree.File(b.Path+"/size", b.Size+"\n")
		if properties, ok := guest.Udev[b.Number]; ok {
			tree.Udev(b.Number, properties...)
		}
	}
	for device, driver := range guest.Drivers {
		tree.Driver(device, driver)
	}
	for device, names := range guest.Siblings {
		for _, name := range names {
			tree.Dir(device + "/" + name)
		}
	}
	tree.File("/proc/self/mountinfo", strings.Join(guest.Mountinfo, "\n")+"\n")
	return tree
}

// Golden decodes what was captured under a name.
func Golden(t testing.TB, name string, into any) {
	t.Helper()
	data, err := testdata.ReadFile("testdata/" + name + ".json")
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Remove removes a file or directory with all that is in it.
func (t Tree) Remove(name string) {
	t.Helper()
	if err := os.RemoveAll(t.Root.Path(name)); err != nil {
		t.Fatal(err)
	}
}

// Unreadable puts a directory in the place of a file: unlike a file without
// permissions it cannot be read by root either.
func (t Tree) Unreadable(name string) {
	t.Helper()
	t.Remove(name)
	t.Dir(name)
}

// Files returns all files and links, as absolute paths on the guest.
func (t Tree) Files() []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(t.Root.Path("/"), func(name string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			list = append(list, strings.TrimPrefix(name, string(t.Root)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Spoil replaces a file's content, or what a link points to, until restore is
// called.
func (t Tree) Spoil(name, content string) (restore func()) {
	t.Helper()
	real := t.Root.Path(name)
	saved := real + ".saved"
	if err := os.Rename(real, saved); err != nil {
		t.Fatal(err)
	}
	var err error
	if info, _ := os.Lstat(saved); info.Mode()&os.ModeSymlink != 0 {
		err = os.Symlink(real, real) // a loop
	} else {
		err = os.WriteFile(real, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(saved, real); err != nil {
			t.Fatal(err)
		}
	}
}
