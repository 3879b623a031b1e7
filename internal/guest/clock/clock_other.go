//go:build !linux

package clock

import (
	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/qga"
)

// Commands returns the commands of this package.
func Commands() []agent.Handler {
	return []agent.Handler{agent.Handle(qga.GetTime, getTime)}
}
