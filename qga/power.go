package qga

// A ShutdownMode is what becomes of the machine. It is a plain string in the
// protocol: the command itself refuses other values, in its own words.
type ShutdownMode string

// The values of ShutdownMode.
const (
	Powerdown ShutdownMode = "powerdown"
	Halt      ShutdownMode = "halt" // stop, but leave the power on
	Reboot    ShutdownMode = "reboot"
)

// ShutdownArgs are the arguments of guest-shutdown.
type ShutdownArgs struct {
	// Mode is Powerdown when absent.
	Mode *ShutdownMode `json:"mode,omitempty"`
}

// Shutdown asks the guest to shut down. No reply comes unless it could not be
// asked; that it went down shows on the host.
var Shutdown = Command[ShutdownArgs, Empty]{Info{
	Name: "guest-shutdown", Since: "0.15.0", Systems: AllSystems, Silent: true,
}}

// SuspendDisk hibernates the guest: its memory goes to disk and the machine
// off. No reply comes unless that failed. A client should send Sync once the
// guest is back.
var SuspendDisk = Command[Empty, Empty]{Info{
	Name: "guest-suspend-disk", Since: "1.1", Systems: Linux | Windows, Silent: true,
}}

// SuspendRAM suspends the guest to memory. No reply comes unless that failed.
// The host must be able to wake the machine up: query-current-machine in QMP
// says so in wakeup-suspend-support.
var SuspendRAM = Command[Empty, Empty]{Info{
	Name: "guest-suspend-ram", Since: "1.1", Systems: Linux | Windows, Silent: true,
}}

// SuspendHybrid does as SuspendRAM, but saves the memory to disk first, so that
// losing power loses nothing.
var SuspendHybrid = Command[Empty, Empty]{Info{
	Name: "guest-suspend-hybrid", Since: "1.1", Systems: Linux, Silent: true,
}}
