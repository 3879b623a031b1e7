// Package vm boots small Linux guests under QEMU, to meet a guest agent where
// it lives: on a virtio-serial port.
//
// A guest is Debian's cloud kernel and an initramfs that this package writes,
// run by software emulation, so that it works without KVM and without
// privileges. It is up in about three seconds. Its first process starts each
// agent on a port of its own, and starts it again when it ends:
//
//	g, err := vm.Boot(ctx, vm.Config{
//		Agents: []vm.Agent{{Program: vm.Program{Path: "bin/qemu-ga"}}},
//	})
//	...
//	defer g.Stop(ctx)
//	conn, err := net.Dial("unix", g.Socket())
//
// With an [Image] the guest is a distribution: its init, udev and units, which
// start the agent on [AgentPort] as they do everywhere, and a kernel with the
// drivers that the cloud kernel lacks. That takes about 20 seconds.
//
// What an agent did is seen from the side by [Guest.Run], which runs commands
// in the guest through another agent, QEMU's own, on another port. What QEMU
// knows, and what a host administrator would do, goes through [Guest.QMP].
//
// The parts come from a cache that "make setup" fills. Tests use [Start],
// which fails or skips where they are missing.
package vm
