package client

import (
	"context"
	"fmt"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
)

// How often Exec asks: soon at first, because most programs are done in no
// time, and then ever more seldom.
const (
	firstPoll = time.Millisecond
	lastPoll  = 200 * time.Millisecond
)

// Exec runs a program in the guest, waits for its end and returns how it went.
// A program that fails is no error. The wait is as long as ctx allows: without
// a deadline Client.Timeout limits each of its calls, not the program. When ctx
// ends the program runs on, as the protocol has no way to end it.
func (c *Client) Exec(ctx context.Context, args qga.ExecArgs) (qga.ExecStatusResult, error) {
	started, err := Call(ctx, c, qga.Exec, args)
	if err != nil {
		return qga.ExecStatusResult{}, err
	}
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		status, err := Call(ctx, c, qga.ExecStatus, qga.ExecStatusArgs(started))
		if err != nil || status.Exited {
			return status, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return qga.ExecStatusResult{}, ended(ctx.Err(), fmt.Sprintf("waiting for process %d", started.PID))
		}
	}
}
