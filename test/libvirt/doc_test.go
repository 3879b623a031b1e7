//go:build linux

// Package libvirt tests the agent with libvirt, the client that most guests
// have. A libvirt daemon of the tests' own runs two guests that are alike but
// for their agents, QEMU's own and ours, and virsh has to say the same of both.
package libvirt
