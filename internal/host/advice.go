package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
)

// advice says what to do about an error, as far as that can be known.
func (t *tool) advice(ctx context.Context, err error) string {
	agentError, refused := errors.AsType[*qga.Error](err)
	switch {
	case !t.running, errors.Is(err, context.Canceled):
		return ""
	case refused && agentError.Class == qga.CommandNotFound:
		return t.missingCommand(ctx, err)
	case errors.Is(err, client.ErrUnreachable):
		return t.unreachable(err)
	case errors.Is(err, client.ErrProtocol) && errors.Is(err, client.ErrNoAnswer):
		return "The target has to be the socket of the guest agent's channel."
	case errors.Is(err, client.ErrNoAnswer):
		return `Something is connected, but no agent answers. In this order:
  - Has the guest booted, and is it running (not paused)?
  - Does the agent run in it? There: systemctl status qemu-guest-agent
  - Does the guest have the channel? There: ls /dev/virtio-ports/org.qemu.guest_agent.0
  - Is somebody else connected to the socket, such as libvirt to its own?
  - Is the agent busy with an earlier command, such as a freeze or a trim?`
	case errors.Is(err, context.DeadlineExceeded):
		return "The agent is there, but the command takes longer, and may still be at work. --timeout gives it more time."
	case t.exitCode(err) == exitNoReply && !errors.Is(err, client.ErrProtocol):
		return "The agent, or the guest, went away. Whether the command was carried out is not known."
	}
	return ""
}

func (t *tool) unreachable(err error) string {
	path := t.target.path
	st, statErr := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf(`There is no %s. Is the guest running, and does it have a channel for the agent?
libvirt keeps the sockets in /run/libvirt/qemu/channel (older ones in
/var/lib/libvirt/qemu/channel/target), Proxmox VE in /var/run/qemu-server/ID.qga.`, path)
	case errors.Is(err, fs.ErrPermission):
		return "You may not connect to it: try as root, or as the user that QEMU runs as."
	case statErr == nil && st.Mode().Type() != fs.ModeSocket:
		return path + " is not a socket."
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Nobody listens there any more: the guest is off, and has left the socket behind."
	case errors.Is(err, syscall.EINVAL):
		return "The path may be too long for a socket (107 bytes): try a relative one."
	}
	return ""
}

// lookTimeout limits asking the agent what it has, after a failure.
const lookTimeout = 3 * time.Second

// missingCommand finds out why the agent says that it has no such command,
// which it says of those that are turned off as well.
func (t *tool) missingCommand(ctx context.Context, err error) string {
	command, _, _ := strings.Cut(err.Error(), ":")
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	c := client.New(t.target.road)
	defer c.Close()
	agent, err := client.Call(ctx, c, qga.GuestInfo, qga.Empty{})
	if err != nil {
		return ""
	}
	for _, has := range agent.SupportedCommands {
		if has.Name == command {
			return `The command is turned off in the guest. See block-rpcs and allow-rpcs there: in
/etc/qemu/qemu-ga.conf, in the options of its service (systemctl cat qemu-guest-agent),
in /etc/sysconfig/qemu-ga or /etc/default/qemu-guest-agent. While file systems are
frozen most commands are off too.`
		}
	}
	known, ok := describe(command)
	switch {
	case !ok:
		return fmt.Sprintf("The protocol has no such command. 'bellhop info %s' lists those of the agent.", t.target.name)
	case older(agent.Version, known.Since):
		return fmt.Sprintf("The agent in the guest is older than the command: it is of QEMU %s, %s came with %s.",
			agent.Version, command, known.Since)
	case known.Systems != qga.AllSystems:
		return fmt.Sprintf("Agents have the command on %s only.", systems(known.Systems))
	}
	return "The agent in the guest was built without it."
}

// older compares versions such as 2.5 and 2.10.1.
func older(version, than string) bool {
	for version != "" || than != "" {
		var v, t string
		v, version, _ = strings.Cut(version, ".")
		t, than, _ = strings.Cut(than, ".")
		a, _ := strconv.Atoi(v) // what is missing counts as zero
		b, _ := strconv.Atoi(t)
		if a != b {
			return a < b
		}
	}
	return false
}

func systems(s qga.System) string {
	var names []string
	for _, system := range []struct {
		bit  qga.System
		name string
	}{{qga.Linux, "Linux"}, {qga.Windows, "Windows"}, {qga.FreeBSD, "FreeBSD"}} {
		if s&system.bit != 0 {
			names = append(names, system.name)
		}
	}
	return strings.Join(names, " and ")
}
