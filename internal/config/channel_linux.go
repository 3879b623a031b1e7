package config

// defaultPaths are the paths of the methods that need none.
var defaultPaths = map[string]string{
	MethodVirtioSerial: "/dev/virtio-ports/org.qemu.guest_agent.0",
	MethodISASerial:    "/dev/ttyS0",
}

var methods = []string{MethodVirtioSerial, MethodISASerial, MethodUnixListen, MethodVsockListen}
