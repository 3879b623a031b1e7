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

// initramfs returns the root file system of a guest as a cpio archive.
func initramfs(c *Config) ([]byte, error) {
	var a archive
	a.entry(".", typeDir|0o755, nil) // else anybody may write to the root
	for _, dir := range []string{"bin", "dev", "etc/vm/agents", "proc", "root", "run", "sys", "tmp", "usr", "var/lib", "var/log"} {
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
	if err := addModules(&a, append(slices.Clone(portModules), c.Modules...)); err != nil {
		return nil, err
	}
	a.add("init", 0o755, initScript)
	a.add("bin/shutdown", 0o755, []byte(shutdownScript))
	for name, data := range baseFiles {
		a.add(name, 0o644, []byte(data))
	}

	var ports strings.Builder
	for _, agent := range c.Agents {
		script, err := addAgent(&a, agent)
		if err != nil {
			return nil, err
		}
		a.add("etc/vm/agents/"+agent.name(), 0o755, []byte(script))
		if agent.Port != "" {
			ports.WriteString(agent.Port + "\n")
		}
	}
	a.add("etc/vm/ports", 0o644, []byte(ports.String()))
	a.add("etc/vm/start", 0o644, []byte(c.Start))

	for name, program := range c.Programs {
		if err := addProgram(&a, name, program); err != nil {
			return nil, err
		}
	}
	for name, file := range c.Files {
		mode := file.Mode
		if mode == 0 {
			mode = 0o644
		}
		a.add(name, mode, []byte(file.Data))
	}
	return a.bytes(), nil
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

// addAgent adds an agent's program and returns the script that runs it.
func addAgent(a *archive, agent Agent) (script string, err error) {
	file := "/opt/" + agent.name() + "/" + agent.Program.name()
	if err := addProgram(a, file, agent.Program); err != nil {
		return "", err
	}
	state := "/var/lib/" + agent.name()
	a.mkdir(state)
	args := []string{"exec", file, "-t", state}
	if agent.Port != "" {
		args = append(args, "-m", "virtio-serial", "-p", "/dev/virtio-ports/"+agent.Port)
	}
	for _, arg := range agent.Args {
		args = append(args, "'"+strings.ReplaceAll(arg, "'", `'\''`)+"'")
	}
	return "#!/bin/sh\n" + strings.Join(args, " ") + "\n", nil
}

// addProgram adds a program under the given name. One that comes with its own
// libraries becomes a script that runs it with them, from NAME.d.
func addProgram(a *archive, name string, p Program) error {
	data, err := os.ReadFile(p.Path)
	if err != nil {
		return err
	}
	if p.Lib == "" {
		a.add(name, 0o755, data)
		return nil
	}
	dir := name + ".d"
	a.add(dir+"/"+p.name(), 0o755, data)
	libraries, err := libraries(p)
	if err != nil {
		return err
	}
	for _, lib := range libraries {
		data, err := os.ReadFile(filepath.Join(p.Lib, lib))
		if err != nil {
			return err
		}
		a.add(dir+"/lib/"+lib, 0o755, data)
	}
	a.add(name, 0o755, fmt.Appendf(nil, "#!/bin/sh\nexec %[1]s/lib/%[2]s --library-path %[1]s/lib --argv0 %[3]s %[1]s/%[3]s \"$@\"\n",
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

// addModules adds kernel modules with those that they depend on, and the list
// that the init loads them from.
func addModules(a *archive, names []string) error {
	files, err := modules(cached("kernel/modules"), names)
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
