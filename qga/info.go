package qga

// CommandInfo says of one command whether it can be called now.
type CommandInfo struct {
	Name string `json:"name"`
	// Enabled is false while the guest's configuration or a freeze forbids the
	// command; calling it then fails with CommandNotFound.
	Enabled bool `json:"enabled"`
	// SuccessResponse is false for a command that replies only on failure.
	// Agents before 1.7 do not send it, which reads as false here.
	SuccessResponse bool `json:"success-response" since:"1.7"`
}

// AgentInfo describes the agent.
type AgentInfo struct {
	// Version is the QEMU release of the agent, without a distribution's
	// suffix.
	Version string `json:"version"`
	// SupportedCommands lists all commands of the agent, disabled ones
	// included, in no particular order. The underscore in its name is right.
	SupportedCommands []CommandInfo `json:"supported_commands" since:"1.1"`
}

// GuestInfo returns the agent's version and its commands. It keeps the prefix
// that other descriptors drop, because Info is the descriptor's own type.
var GuestInfo = Command[Empty, AgentInfo]{Info{
	Name: "guest-info", Since: "0.15.0", Systems: AllSystems, WhileFrozen: true,
}}
