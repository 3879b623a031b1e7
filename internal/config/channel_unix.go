//go:build unix && !linux

package config

// defaultPaths are the paths of the methods that need none. FreeBSD's virtio
// console driver makes the links below vtcon.
var defaultPaths = map[string]string{
	MethodVirtioSerial: "/dev/vtcon/org.qemu.guest_agent.0",
	MethodISASerial:    "/dev/ttyS0",
}

var methods = []string{MethodVirtioSerial, MethodISASerial, MethodUnixListen}
