package power

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellhop-vm/bellhop/internal/guest/run"
	"github.com/bellhop-vm/bellhop/internal/logging"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/qga"
)

// A kind of sleep, as the various parties call it.
type sleep struct {
	unit, verb   string // of systemd
	asked, tools string // pm-is-supported's option, and the program of pm-utils
	state        string // the kernel's word; empty if it has none
}

var (
	toDisk = sleep{"systemd-hibernate", "hibernate", "--hibernate", "pm-hibernate", "disk"}
	toRAM  = sleep{"systemd-suspend", "suspend", "--suspend", "pm-suspend", "mem"}
	toBoth = sleep{"systemd-hybrid-sleep", "hybrid-sleep", "--suspend-hybrid", "pm-suspend-hybrid", ""}
)

// probing is how long a program may take to say what it can do.
const probing = 30 * time.Second

const stateFile = "/sys/power/state"

// nap is the shortest sleep that is taken for one. The clocks that tell are
// read one after the other.
const nap = 10 * time.Millisecond

// suspend has the machine sleep, and often returns only when it has woken up.
// Of those who say that they can do it, the first that does so is enough. That
// the client leaves does not stop it.
func (p *power) suspend(ctx context.Context, s sleep) error {
	ctx = context.WithoutCancel(ctx)
	before := p.Kernel.Slept()
	var failure error
	for _, tool := range []struct {
		ask  []string // tells by its exit code
		most int      // the greatest code for yes
		do   []string
	}{
		// That its unit is running, failed or at rest, which status has
		// different codes for, means that there is one; 4 is for none.
		{[]string{"systemctl", "status", s.unit}, 3, []string{"systemctl", s.verb}},
		{[]string{"pm-is-supported", s.asked}, 0, []string{s.tools}},
	} {
		if code, ok := p.ask(ctx, tool.ask); !ok || code > tool.most {
			continue
		}
		_, err := p.Run(ctx, run.Command{Args: tool.do, Action: "suspend", Limit: limit})
		switch {
		case err == nil:
			return nil
		case p.Kernel.Slept()-before > nap:
			// What failed came after the waking up; it must not sleep again.
			p.Log(logging.Warning, "after the suspend: %v", err)
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			return err // by now nobody expects it to sleep
		case failure == nil && !absent(err):
			failure = err
		}
	}
	if data, err := p.Root.ReadFile(stateFile); err == nil && s.state != "" && slices.Contains(strings.Fields(string(data)), s.state) {
		if err := p.Root.Store(stateFile, s.state, 0); err != nil {
			return fmt.Errorf("suspend: cannot write to '%s': %w", stateFile, strerror.Reason(err))
		}
		return nil
	}
	if failure != nil {
		return failure
	}
	return qga.Failure("the requested suspend mode is not supported by the guest")
}

// ask runs a program and returns its exit code, if it has one.
func (p *power) ask(ctx context.Context, args []string) (code int, ok bool) {
	_, err := p.Run(ctx, run.Command{Args: args, Action: "suspend", Limit: probing})
	if err == nil {
		return 0, true
	}
	exit, ok := errors.AsType[*run.ExitError](err)
	if !ok || exit.Code < 0 {
		return 0, false
	}
	return exit.Code, true
}
