package qga

// A VCPU is a logical processor of the guest.
type VCPU struct {
	// LogicalID is the guest's own number for it.
	LogicalID int64 `json:"logical-id"`
	Online    bool  `json:"online"`
	// CanOffline says whether it can be taken offline. Agents always send it
	// and ignore it as an argument.
	CanOffline *bool `json:"can-offline,omitempty"`
}

// GetVCPUs lists all logical processors, in no particular order.
var GetVCPUs = Command[Empty, []VCPU]{Info{
	Name: "guest-get-vcpus", Since: "1.5", Systems: Linux | Windows,
}}

// SetVCPUsArgs are the arguments of guest-set-vcpus.
type SetVCPUsArgs struct {
	// VCPUs are the processors to change and the states they shall have.
	VCPUs []VCPU `json:"vcpus"`
}

// SetVCPUs takes processors online or offline in the order given, up to the
// first that fails, and returns how many it managed. It is an error only if the
// first fails; to learn why a later one did, send it again as the first.
var SetVCPUs = Command[SetVCPUsArgs, int64]{Info{
	Name: "guest-set-vcpus", Since: "1.5", Systems: Linux,
}}

// A CPUStatsType is the system whose counters a CPUStats holds.
type CPUStatsType string

// LinuxCPUStats is the only value of CPUStatsType.
const LinuxCPUStats CPUStatsType = "linux"

// EnumValues implements Enum.
func (CPUStatsType) EnumValues() []string { return enumValues(LinuxCPUStats) }

// CPUStats is how one processor has spent its time since boot, in milliseconds.
// Members that the guest's kernel does not count are absent.
type CPUStats struct {
	// Type decides on the members that follow; these are those of Linux.
	Type CPUStatsType `json:"type"`
	// CPU is the processor's logical number.
	CPU    int64  `json:"cpu"`
	User   uint64 `json:"user"`
	Nice   uint64 `json:"nice"`
	System uint64 `json:"system"`
	Idle   uint64 `json:"idle"`
	// IOWait is time idle with disk requests outstanding.
	IOWait  *uint64 `json:"iowait,omitempty"`
	IRQ     *uint64 `json:"irq,omitempty"`
	SoftIRQ *uint64 `json:"softirq,omitempty"`
	// Steal is time that the hypervisor gave to others.
	Steal *uint64 `json:"steal,omitempty"`
	// Guest and GuestNice are time spent running virtual machines. They are
	// contained in User and Nice.
	Guest     *uint64 `json:"guest,omitempty"`
	GuestNice *uint64 `json:"guestnice,omitempty"`
}

// GetCPUStats returns the time accounts of the processors that are online.
var GetCPUStats = Command[Empty, []CPUStats]{Info{
	Name: "guest-get-cpustats", Since: "7.1", Systems: Linux,
}}

// LoadAverage is the mean number of running or waiting tasks over the last
// minute, five and fifteen minutes. On Windows, where agents compute it, it is
// the length of the processor queue since the first call.
type LoadAverage struct {
	Load1m  float64 `json:"load1m"`
	Load5m  float64 `json:"load5m"`
	Load15m float64 `json:"load15m"`
}

// GetLoad returns the load averages.
var GetLoad = Command[Empty, LoadAverage]{Info{
	Name: "guest-get-load", Since: "10.0", Systems: AllSystems,
}}
