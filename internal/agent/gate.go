package agent

import (
	"slices"

	"github.com/bellhop-vm/bellhop/qga"
)

// A Verdict is what a Gate says of a command.
type Verdict int

// The verdicts of a Gate.
const (
	Pass  Verdict = iota // the next gate decides; behind the last one is Allow
	Allow                // the command may run, whatever the gates behind say
	Deny                 // the command is disabled
)

// A Gate decides whether a command may run now. guest-info asks the same gates
// as dispatch does, so what it reports as enabled is what would run.
type Gate func(*qga.Info) Verdict

// FrozenGate denies what is not safe while file systems are frozen as long as
// frozen reports so. What is safe it allows whatever the lists behind it say, as
// long as due reports that a host still has to thaw: a guest in which nobody may
// call guest-fsfreeze-thaw must not stay frozen, and a host that comes too late
// has to be told.
func FrozenGate(frozen, due func() bool) Gate {
	return func(c *qga.Info) Verdict {
		switch {
		case c.WhileFrozen && due():
			return Allow
		case !c.WhileFrozen && frozen():
			return Deny
		default:
			return Pass
		}
	}
}

// ListGate obeys the administrator's lists: with an allow list only what is on
// it may run, and nothing that is on the block list.
func ListGate(allow, block []string) Gate {
	return func(c *qga.Info) Verdict {
		if len(allow) > 0 && !slices.Contains(allow, c.Name) || slices.Contains(block, c.Name) {
			return Deny
		}
		return Pass
	}
}
