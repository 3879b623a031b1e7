//go:build linux

package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Result is how a command in the guest ended, and what it said.
type Result struct {
	// Exit is the exit status, or 128 and the number of the signal that
	// killed the command, as a shell has it.
	Exit   int
	Stdout string
	Stderr string
}

// Run runs a command in the guest and waits for its end. The path of the
// program is looked up in the guest's PATH. This goes through QEMU's own agent
// on a port for this purpose, and so needs nothing of the agents under test.
// That the command fails is no error.
func (g *Guest) Run(ctx context.Context, path string, args ...string) (Result, error) {
	if g.witness == nil {
		return Result{}, errors.New("guest was booted without a witness")
	}
	r, err := g.witness.run(ctx, path, args)
	if err != nil {
		return r, fmt.Errorf("run %s in the guest: %w", path, err)
	}
	return r, nil
}

// Shell runs a shell script in the guest and returns its output. It is an
// error, with what the script wrote to its standard error, that it fails.
func (g *Guest) Shell(ctx context.Context, script string) (string, error) {
	r, err := g.Run(ctx, "/bin/sh", "-c", script)
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("shell in the guest: exit status %d: %s", r.Exit, r.Stderr)
	}
	return r.Stdout, err
}

// AgentPID returns the process ID, in the guest, of the agent on a port. The
// number changes when the agent ends, for it is started again.
func (g *Guest) AgentPID(ctx context.Context, port string) (int, error) {
	script := "cat /run/vm/" + port + ".pid"
	if g.image != NoImage {
		script = "systemctl show -P MainPID " + Agent{Port: port}.unit()
	}
	out, err := g.Shell(ctx, script)
	if err != nil {
		return 0, err
	}
	var pid int
	if _, err := fmt.Sscan(out, &pid); err != nil {
		return 0, fmt.Errorf("process ID of the agent on %s: %w", port, err)
	}
	return pid, nil
}

// witness is a minimal client of QEMU's agent. It shares nothing with the
// client that is under test.
type witness struct {
	path string

	mu   sync.Mutex
	conn net.Conn // nil before the first use and after a failure
	dec  *json.Decoder
}

func newWitness(path string) *witness { return &witness{path: path} }

func (w *witness) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop()
}

func (w *witness) drop() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

func (w *witness) run(ctx context.Context, path string, args []string) (Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()

	var started struct{ PID int }
	err := w.call(ctx, "guest-exec", map[string]any{"path": path, "arg": args, "capture-output": true}, &started)
	if err != nil {
		return Result{}, err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		var status struct {
			Exited   bool
			ExitCode int
			Signal   int
			OutData  []byte `json:"out-data"`
			ErrData  []byte `json:"err-data"`
		}
		if err := w.call(ctx, "guest-exec-status", map[string]any{"pid": started.PID}, &status); err != nil {
			return Result{}, err
		}
		if status.Exited {
			exit := status.ExitCode
			if status.Signal != 0 {
				exit = 128 + status.Signal
			}
			return Result{exit, string(status.OutData), string(status.ErrData)}, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return Result{}, context.Cause(ctx)
		}
	}
}

// call makes one request. After a failure the connection is given up, since
// what comes next on it could be the answer to an earlier request.
func (w *witness) call(ctx context.Context, command string, args, result any) error {
	if w.conn == nil {
		if err := w.connect(ctx); err != nil {
			w.drop()
			return err
		}
	}
	var reply struct {
		Return json.RawMessage
		Error  *struct{ Class, Desc string }
	}
	if err := w.roundTrip(ctx, command, args, &reply); err != nil {
		w.drop()
		return fmt.Errorf("%s: %w", command, err)
	}
	if reply.Error != nil {
		return fmt.Errorf("%s: %s: %s", command, reply.Error.Class, reply.Error.Desc)
	}
	return json.Unmarshal(reply.Return, result)
}

// connect opens the port and discards what is on its way to an earlier client.
func (w *witness) connect(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", w.path)
	if err != nil {
		return err
	}
	w.conn, w.dec = conn, json.NewDecoder(conn)
	id := time.Now().UnixNano()
	var reply struct{ Return json.RawMessage }
	if err := w.roundTrip(ctx, "guest-sync", map[string]any{"id": id}, &reply); err != nil {
		return fmt.Errorf("guest-sync: %w", err)
	}
	for !bytes.Equal(reply.Return, fmt.Append(nil, id)) {
		reply.Return = nil
		if err := w.dec.Decode(&reply); err != nil {
			return fmt.Errorf("guest-sync: %w", err)
		}
	}
	return nil
}

func (w *witness) roundTrip(ctx context.Context, command string, args, reply any) error {
	conn := w.conn
	// Unblocks reading and writing; the deadline is wiped below.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request, err := json.Marshal(map[string]any{"execute": command, "arguments": args})
	if err != nil {
		return err
	}
	if _, err = conn.Write(append(request, '\n')); err == nil {
		err = w.dec.Decode(reply)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}
