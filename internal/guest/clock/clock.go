// Package clock answers for the guest's system clock.
package clock

import (
	"context"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/qga"
)

// Commands returns the commands of this package.
func Commands() []agent.Handler {
	return []agent.Handler{agent.Handle(qga.GetTime, getTime)}
}

// getTime rounds down to microseconds, as the C agent does, so that nobody
// takes one agent for the other by the grain of its clock.
func getTime(context.Context, qga.Empty) (int64, error) {
	return time.Now().Truncate(time.Microsecond).UnixNano(), nil
}
