//go:build linux

package vm

import (
	"debug/elf"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript []byte

// shutdownScript stands in for shutdown(8), which busybox has not.
const shutdownScript = `#!/bin/sh
sync
case " $* " in
*" -r "*) exec reboot -f ;;
*" -H "*) exec halt -f ;;
esac
exec poweroff -f
`

// baseFiles is what a guest has in /etc at least.
var baseFiles = map[string]string{
	"/etc/hostname": "guest\n",
	"/etc/hosts":    "127.0.0.1 localhost guest\n::1 localhost\n",
	"/etc/passwd":   "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
	"/etc/group":    "root:x:0:\nnogroup:x:65534:\n",
	"/etc/shadow":   "root:*:20000:0:99999:7:::\nnobody:*:20000:0:99999:7:::\n",
	"/etc/os-release": `NAME="Bellhop test guest"
ID=bellhop-test
VERSION="1 (busybox)"
VERSION_ID=1
PRETTY_NAME="Bellhop test guest 1 (busybox)"
`,
}

// portModules are what the virtio ports of any guest need.
var portModules = []string{"virtio_pci", "virtio_console"}

// initramfs returns what the kernel unpacks as its first root file system: the
// guest itself, or what becomes the guest with the image that it mounts.
func initramfs(c *Config) ([]byte, error) {
	var a archive
	a.entry(".", typeDir|0o755, nil) // else anybody may write to the root
	for _, dir := range []string{"bin", "dev", "etc/vm", "proc", "root", "run", "sys", "tmp", "usr", "var/lib", "var/log"} {
		a.mkdir(dir)
	}
	for _, link := range [][2]string{
		{"sbin", "bin"}, {"usr/bin", "../bin"}, {"usr/sbin", "../bin"}, {"var/run", "../run"},
	} {
		a.add(link[0], fs.ModeSymlink|0o777, []byte(link[1]))
	}
	if err := addBusybox(&a); err != nil {
		return nil, err
	}
	add := addBare
	if c.Image != NoImage {
		add = addImage
	}
	if err := add(&a, c); err != nil {
		return nil, err
	}
	return a.bytes(), nil
}

// addBare adds what makes the initramfs a guest by itself.
func addBare(a *archive, c *Config) error {
	if err := addModules(a, cached("kernel/modules"), append(slices.Clone(portModules), c.Modules...)); err != nil {
		return err
	}
	a.add("init", 0o755, initScript)
	a.add("bin/shutdown", 0o755, []byte(shutdownScript))
	for name, data := range baseFiles {
		a.add(name, 0o644, []byte(data))
	}
	a.mkdir("etc/vm/agents")
	var ports strings.Builder
	for _, agent := range c.Agents {
		if err := addAgent(a, "", agent); err != nil {
			return err
		}
		if agent.Port != "" {
			ports.WriteString(agent.Port + "\n")
		}
	}
	a.add("etc/vm/ports", 0o644, []byte(ports.String()))
	return addConfigured(a, "", c)
}

// addConfigured adds below root what any guest may be given: start commands,
// programs and files.
func addConfigured(a *archive, root string, c *Config) error {
	a.add(root+"/etc/vm/start", 0o644, []byte(c.Start))
	for name, program := range c.Programs {
		if err := addProgram(a, root, name, program); err != nil {
			return err
		}
	}
	for name, file := range c.Files {
		mode := file.Mode
		if mode == 0 {
			mode = 0o644
		}
		a.add(root+"/"+name, mode, []byte(file.Data))
	}
	return nil
}

// addBusybox adds busybox and a link for each command that it can be. Links
// in the archive are made faster than by busybox itself, under emulation.
func addBusybox(a *archive) error {
	busybox := cached("busybox")
	data, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	a.add("bin/busybox", 0o755, data)
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", busybox, err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		if name != "busybox" {
			a.add("bin/"+name, fs.ModeSymlink|0o777, []byte("busybox"))
		}
	}
	return nil
}

// addAgent adds below root an agent's program and a script that runs it.
func addAgent(a *archive, root string, agent Agent) error {
	file := agent.Program.Path
	if !agent.Program.InGuest {
		file = "/opt/" + agent.name() + "/" + agent.Program.name()
		if err := addProgram(a, root, file, agent.Program); err != nil {
			return err
		}
	}
	state := "/var/lib/" + agent.name()
	a.mkdir(root + state)
	args := []string{file, "-t", state}
	if agent.Port != "" {
		args = append(args, "-m", "virtio-serial", "-p", "/dev/virtio-ports/"+agent.Port)
	}
	script := "#!/bin/sh\nexec " + quote(append(args, agent.Args...)) + "\n"
	a.add(root+"/etc/vm/agents/"+agent.name(), 0o755, []byte(script))
	return nil
}

// quote returns the words as a shell takes them, and systemd, too, if there are
// no quotes in them.
func quote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// addProgram adds a program below root under the given name. One that comes with
// its own libraries becomes a script that runs it with them, from NAME.d.
func addProgram(a *archive, root, name string, p Program) error {
	data, err := os.ReadFile(p.Path)
	if err != nil {
		return err
	}
	if p.Lib == "" {
		a.add(root+"/"+name, 0o755, data)
		return nil
	}
	dir := name + ".d"
	a.add(root+"/"+dir+"/"+p.name(), 0o755, data)
	libraries, err := libraries(p)
	if err != nil {
		return err
	}
	for _, lib := range libraries {
		data, err := os.ReadFile(filepath.Join(p.Lib, lib))
		if err != nil {
			return err
		}
		a.add(root+"/"+dir+"/lib/"+lib, 0o755, data)
	}
	a.add(root+"/"+name, 0o755, fmt.Appendf(nil, "#!/bin/sh\nexec %[1]s/lib/%[2]s --library-path %[1]s/lib --argv0 %[3]s %[1]s/%[3]s \"$@\"\n",
		dir, loader, p.name()))
	return nil
}

// loader is the program that loads a dynamic executable, as amd64 names it.
const loader = "ld-linux-x86-64.so.2"

// libraries returns the names of the shared libraries that a program needs,
// those that these need in turn, and the loader's.
func libraries(p Program) ([]string, error) {
	needed := []string{loader}
	visit := func(file string) error {
		f, err := elf.Open(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		defer f.Close()
		libs, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, lib := range libs {
			if !slices.Contains(needed, lib) {
				needed = append(needed, lib)
			}
		}
		return nil
	}
	if err := visit(p.Path); err != nil {
		return nil, err
	}
	for i := 0; i < len(needed); i++ { // visit adds to needed
		if err := visit(filepath.Join(p.Lib, needed[i])); err != nil {
			return nil, err
		}
	}
	return needed, nil
}

// addModules adds kernel modules from dir with those that they depend on, and
// the list that the init loads them from.
func addModules(a *archive, dir string, names []string) error {
	files, err := modules(dir, names)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name := "/lib/modules/" + path.Base(file)
		a.add(name, 0o644, data)
		list.WriteString(name + "\n")
	}
	a.add("etc/vm/modules", 0o644, []byte(list.String()))
	return nil
}

// modules returns the files of the named kernel modules below dir, each after
// those that it depends on.
func modules(dir string, names []string) ([]string, error) {
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(file string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(file), ".ko"); ok {
			found[moduleName(name)] = file
		}
		return err
	})
	if err != nil {
		return nil, err
	}

	var files []string
	var load func(name string) error
	load = func(name string) error {
		file, ok := found[moduleName(name)]
		if !ok {
			return fmt.Errorf("kernel module %s: %w in %s", name, fs.ErrNotExist, dir)
		}
		if slices.Contains(files, file) {
			return nil
		}
		depends, err := moduleDepends(file)
		if err != nil {
			return err
		}
		for _, name := range depends {
			if err := load(name); err != nil {
				return err
			}
		}
		files = append(files, file)
		return nil
	}
	for _, name := range names {
		if err := load(name); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// moduleName returns a module's name as the kernel knows it: a file's name may
// have a dash where the module has an underscore.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleDepends returns the names of the modules that a module needs, as its
// .modinfo section lists them.
func moduleDepends(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s: no .modinfo section", file)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
