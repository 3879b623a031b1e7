package qga

// GetTime returns the guest's system time in nanoseconds since the Unix epoch.
// The clock behind it may be coarser: microseconds on Linux, 100 ns on Windows.
var GetTime = Command[Empty, int64]{Info{
	Name: "guest-get-time", Since: "1.5", Systems: AllSystems,
}}

// SetTimeArgs are the arguments of guest-set-time.
type SetTimeArgs struct {
	// Time is the new time in nanoseconds since the Unix epoch, within the
	// years 1970 to 2069. When it is absent the time is read from the guest's
	// hardware clock, or, on Windows, asked of the time service.
	Time *int64 `json:"time,omitempty"`
}

// SetTime sets the system time, and with a given time the hardware clock too.
// If only the latter fails, the reply is an error although the system time has
// changed.
var SetTime = Command[SetTimeArgs, Empty]{Info{
	Name: "guest-set-time", Since: "1.5", Systems: AllSystems,
}}
