//go:build linux

package vm

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Image is a root file system, with a kernel, that test/setup.sh has built by
// test/vm/debian/build.sh. Its value is its directory in the cache.
type Image string

const (
	// NoImage is for a guest that is nothing but busybox.
	NoImage Image = ""
	// Debian is Debian 13 with systemd, udev, what disks and file systems
	// need, and QEMU's agent 11. It has MariaDB, PostgreSQL and Redis, too, which
	// are not started.
	Debian Image = "debian"
)

// ImageCAgent is QEMU's own agent as it is installed in an [Image], which knows
// where its libraries are. It stays there when another agent takes its place.
var ImageCAgent = Program{Path: "/usr/sbin/qemu-ga-c", InGuest: true}

//go:embed debian/init.sh
var imageInit []byte

//go:embed debian/build.sh
var imageRecipe []byte

// check returns an error if there is no image that this recipe has built.
func (i Image) check() error {
	if i == NoImage {
		return nil
	}
	recipe, err := os.ReadFile(i.file("recipe"))
	if err == nil && !bytes.Equal(recipe, imageRecipe) {
		err = errors.New("built by another version of test/vm/debian/build.sh")
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", i, err)
	}
	return nil
}

func (i Image) file(name string) string { return cached(string(i), name) }

// installed is where the distribution's unit looks for the agent.
const installed = "/usr/sbin/qemu-ga"

// overlay is where the initramfs has the files that are added to an image.
const overlay = "/guest"

// addImage adds what mounts an image, and what makes it this guest.
func addImage(a *archive, c *Config) error {
	if err := addModules(a, c.Image.file("modules"), []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4"}); err != nil {
		return err
	}
	a.add("init", 0o755, imageInit)

	add := func(name, text string) { a.add(overlay+name, 0o644, []byte(text)) }
	enable := func(unit string) {
		a.add(overlay+"/etc/systemd/system/multi-user.target.wants/"+unit, os.ModeSymlink, []byte("../"+unit))
	}
	add("/etc/modules-load.d/vm.conf", strings.Join(c.Modules, "\n")+"\n")
	var units []string
	for _, agent := range c.Agents {
		unit := agent.unit()
		units = append(units, unit)
		if agent.Port == AgentPort {
			if !agent.Program.InGuest {
				if err := addProgram(a, overlay, installed, agent.Program); err != nil {
					return err
				}
			}
			if len(agent.Args) > 0 {
				add("/etc/systemd/system/"+unit+".d/vm.conf", "[Service]\nExecStart=\nExecStart=-"+installed+" "+quote(agent.Args)+"\n")
			}
			continue
		}
		if err := addAgent(a, overlay, agent); err != nil {
			return err
		}
		device := ""
		if agent.Port != "" {
			device = fmt.Sprintf("BindsTo=%[1]s\nAfter=%[1]s\n", `dev-virtio\x2dports-`+strings.ReplaceAll(agent.Port, "-", `\x2d`)+".device")
		}
		add("/etc/systemd/system/"+unit, fmt.Sprintf(agentUnit, device, agent.name()))
		enable(unit)
	}
	add("/etc/systemd/system/vm-start.service", startUnit)
	enable("vm-start.service")
	add("/etc/systemd/system/vm-ready.service", fmt.Sprintf(readyUnit, strings.Join(units, " ")))
	enable("vm-ready.service")
	return addConfigured(a, overlay, c)
}

// The units of a guest: one for each agent that is not the distribution's, one
// for the commands that run before the agents, and one that tells the host.
const (
	agentUnit = `[Unit]
After=vm-start.service
%s
[Service]
ExecStart=/etc/vm/agents/%s
Restart=always
RestartSec=0
`
	startUnit = `[Unit]
Before=qemu-guest-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /etc/vm/start
`
	readyUnit = `[Unit]
Wants=%[1]s
After=%[1]s vm-start.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo ` + ready + ` >/dev/console'
`
)

// unit returns the name of the unit that runs the agent in an image: on
// [AgentPort], the distribution's.
func (a Agent) unit() string {
	if a.Port == AgentPort {
		return "qemu-guest-agent.service"
	}
	return "agent-" + a.name() + ".service"
}
