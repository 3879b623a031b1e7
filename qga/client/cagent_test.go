package client_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/client"
)

// cAgents lists the C agents on this machine: those that BELLHOP_C_AGENT names,
// else the distribution's and the one that make setup provides.
func cAgents() []string {
	if list := os.Getenv("BELLHOP_C_AGENT"); list != "" {
		return strings.Fields(list)
	}
	candidates := []string{"/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"}
	if cache := os.Getenv("BELLHOP_CACHE"); cache != "" {
		candidates = append(candidates, filepath.Join(cache, "qemu-ga-c11"))
	} else if cache, err := os.UserCacheDir(); err == nil {
		candidates = append(candidates, filepath.Join(cache, "bellhop", "qemu-ga-c11"))
	}
	var list []string
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			list = append(list, path)
		}
	}
	return list
}

// startC starts a C agent on a unix socket.
func startC(t *testing.T, program string) (path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "qga.sock")
	cmd := exec.Command(program, "-m", "unix-listen", "-p", path, "-t", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatal(program + " does not listen")
	return ""
}

func TestCAgent(t *testing.T) {
	programs := cAgents()
	if len(programs) == 0 {
		t.Skip("NO C AGENT HERE, so the client is tested with our own only: install qemu-guest-agent, or set BELLHOP_C_AGENT")
	}
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			path := startC(t, program)
			leaveHalfARequest(t, path)
			c := newClient(t, client.Unix(path))
			ctx := soon(t)

			info, err := client.Call(ctx, c, qga.GuestInfo, qga.Empty{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("version %s, %d commands", info.Version, len(info.SupportedCommands))
			if info.Version == "" || len(info.SupportedCommands) < 30 {
				t.Errorf("guest-info: %+v", info)
			}

			_, err = client.Call(ctx, c, qga.FileClose, qga.HandleArgs{Handle: 5})
			if want := "guest-file-close: handle '5' has not been found"; text(err) != want {
				t.Errorf("the error is %q, want %q", text(err), want)
			}

			file := filepath.Join(t.TempDir(), "file")
			data := randomBytes(5<<20 + 7)
			if err := c.WriteFile(ctx, file, data); err != nil {
				t.Fatal(err)
			}
			got, err := c.ReadFile(ctx, file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, data) {
				t.Error("what was read is not what was written")
			}
			if _, err := c.ReadFile(ctx, file+"x"); !strings.Contains(text(err), "No such file or directory") {
				t.Errorf("no such file: %v", err)
			}

			capture := qga.CaptureSeparated
			r, err := c.Exec(ctx, qga.ExecArgs{
				Path: "/bin/sh", Arg: []string{"-c", "cat; echo no >&2; exit 3"},
				InputData: []byte("in"), CaptureOutput: &capture,
			})
			if err != nil || r.ExitCode == nil || *r.ExitCode != 3 || string(r.OutData) != "in" || string(r.ErrData) != "no\n" {
				t.Errorf("exec: %+v, %v", r, err)
			}

			raw, err := c.CallRaw(ctx, "guest-exec-status", []byte(`{"pid": -5}`))
			if e, ok := errors.AsType[*qga.Error](err); !ok || e.Class != qga.GenericError {
				t.Errorf("a process that is not there: %s, %v", raw, err)
			}

			giveUp(t, c, file)
			checkLargest(t, c, file)
		})
	}
}

// leaveHalfARequest makes use of the C agent's keeping half a request from one
// client to the next.
func leaveHalfARequest(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(`{"execute": "guest-ping", "arguments": {"a": [`)); err != nil {
		t.Fatal(err)
	}
}

// giveUp gives up large requests and replies at any moment. What remains of
// them must not get in the way of what follows.
func giveUp(t *testing.T, c *client.Client, file string) {
	t.Helper()
	mode := "r+"
	h, err := client.Call(soon(t), c, qga.FileOpen, qga.FileOpenArgs{Path: file, Mode: &mode})
	if err != nil {
		t.Fatal(err)
	}
	count := int64(4 << 20)
	given := 0
	for ms := range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(ms+1)*3*time.Millisecond)
		_, readErr := client.Call(ctx, c, qga.FileRead, qga.FileReadArgs{Handle: h, Count: &count})
		cancel()
		ctx, cancel = context.WithTimeout(context.Background(), time.Duration(ms+1)*3*time.Millisecond)
		_, writeErr := client.Call(ctx, c, qga.FileWrite, qga.FileWriteArgs{Handle: h, Data: make([]byte, count)})
		cancel()
		for _, err := range []error{readErr, writeErr} {
			if errors.Is(err, context.DeadlineExceeded) {
				given++
			} else if err != nil {
				t.Error(err)
			}
		}
		if err := ping(soon(t), c); err != nil {
			t.Fatalf("ping after giving up: %v", err)
		}
		if _, err := client.Call(soon(t), c, qga.FileSeek, qga.FileSeekArgs{Handle: h}); err != nil {
			t.Fatal(err)
		}
	}
	if given == 0 {
		t.Error("nothing was given up, so nothing was tested")
	}
	if _, err := client.Call(soon(t), c, qga.FileClose, qga.HandleArgs{Handle: h}); err != nil {
		t.Error(err)
	}
}

// checkLargest reads as much as fits in one reply.
func checkLargest(t *testing.T, c *client.Client, file string) {
	t.Helper()
	if err := os.Truncate(file, qga.FileReadMax); err != nil {
		t.Fatal(err)
	}
	h, err := client.Call(soon(t), c, qga.FileOpen, qga.FileOpenArgs{Path: file})
	if err != nil {
		t.Fatal(err)
	}
	count := int64(qga.FileReadMax)
	r, err := client.Call(soon(t), c, qga.FileRead, qga.FileReadArgs{Handle: h, Count: &count})
	if err != nil || r.Count != count || len(r.Data) != qga.FileReadMax || r.EOF {
		t.Fatalf("a read of 48 MiB returned %d bytes, %v", len(r.Data), err)
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(r.Data, want) {
		t.Errorf("48 MiB are not what is in the file (%v)", err)
	}
}
