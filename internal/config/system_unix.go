//go:build unix

package config

// Environment-dependent defaults are a matter of Windows; see system_windows.go.

func defaultConfigPath(func(string) (string, bool)) string { return "/etc/qemu/qemu-ga.conf" }
func defaultStateDir(func(string) (string, bool)) string   { return "/var/run" }
func defaultPidFile(func(string) (string, bool)) string    { return "/var/run/qemu-ga.pid" }

const defaultFsfreezeHook = "/etc/qemu/fsfreeze-hook"

// serviceControl is whether -s does something. Elsewhere than on Windows the
// C agent takes it, with its argument, and does nothing.
const serviceControl = false

var systemOptions = []option{{letter: 's', arg: requiredArgument}}
