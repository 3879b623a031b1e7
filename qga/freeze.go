package qga

// A FreezeState says whether the guest's file systems are frozen.
type FreezeState string

// The values of FreezeState.
const (
	Thawed FreezeState = "thawed"
	Frozen FreezeState = "frozen"
)

// EnumValues implements Enum.
func (FreezeState) EnumValues() []string { return enumValues(Thawed, Frozen) }

// FSFreezeStatus returns the state as the agent has it. It does not know of
// other programs that freeze or thaw.
var FSFreezeStatus = Command[Empty, FreezeState]{Info{
	Name: "guest-fsfreeze-status", Since: "0.15.0", Systems: AllSystems, WhileFrozen: true,
}}

// FSFreezeFreeze syncs and freezes all local file systems and returns how many
// were frozen. If one fails, those already frozen are thawed. If there was none
// to freeze, the state remains Thawed.
//
// Until FSFreezeThaw, all commands are disabled but those with WhileFrozen. On
// Windows the system ends the freeze by itself after about ten seconds.
var FSFreezeFreeze = Command[Empty, int64]{Info{
	Name: "guest-fsfreeze-freeze", Since: "0.15.0", Systems: AllSystems,
}}

// FSFreezeFreezeListArgs are the arguments of guest-fsfreeze-freeze-list.
type FSFreezeFreezeListArgs struct {
	// Mountpoints are as GetFSInfo lists them; unknown ones are ignored. Nil is
	// absent and stands for all file systems; empty but not nil is none.
	Mountpoints []string `json:"mountpoints,omitempty"`
}

// FSFreezeFreezeList does as FSFreezeFreeze with some of the file systems.
var FSFreezeFreezeList = Command[FSFreezeFreezeListArgs, int64]{Info{
	Name: "guest-fsfreeze-freeze-list", Since: "2.2", Systems: AllSystems,
}}

// FSFreezeThaw thaws all file systems and returns how many it thawed. Fewer
// than were frozen means that something else thawed the others, and that a
// snapshot taken meanwhile may be inconsistent.
var FSFreezeThaw = Command[Empty, int64]{Info{
	Name: "guest-fsfreeze-thaw", Since: "0.15.0", Systems: AllSystems, WhileFrozen: true,
}}
