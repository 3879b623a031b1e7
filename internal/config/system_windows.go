package config

// programData is the directory for data of services.
func programData(lookupEnv func(string) (string, bool)) string {
	if dir, ok := lookupEnv("ProgramData"); ok && dir != "" {
		return dir
	}
	return `C:\ProgramData`
}

func defaultConfigPath(lookupEnv func(string) (string, bool)) string {
	return defaultStateDir(lookupEnv) + `\qemu-ga.conf`
}

func defaultStateDir(lookupEnv func(string) (string, bool)) string {
	return programData(lookupEnv) + `\qemu-ga`
}

func defaultPidFile(lookupEnv func(string) (string, bool)) string {
	return defaultStateDir(lookupEnv) + `\qemu-ga.pid`
}

// defaultFsfreezeHook is empty: Windows freezes through its volume shadow
// copies, whose writers do what the hook does elsewhere.
const defaultFsfreezeHook = ""

const serviceControl = true

var systemOptions = []option{{letter: 's', long: "service", arg: requiredArgument}}

// defaultPaths are the paths of the methods that need none.
var defaultPaths = map[string]string{
	MethodVirtioSerial: `\\.\Global\org.qemu.guest_agent.0`,
	MethodISASerial:    "COM1",
}

var methods = []string{MethodVirtioSerial, MethodISASerial}
