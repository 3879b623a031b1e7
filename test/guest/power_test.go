//go:build linux

package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/test/vm"
)

// testSuspendUnsupported asks for what takes systemd or pm-utils.
func testSuspendUnsupported(t *testing.T, g *guest) {
	c := connect(t, g.Socket())
	callFails(t, c, qga.SuspendHybrid, qga.Empty{}, "the requested suspend mode is not supported by the guest")
}

// testSuspend lets the guest sleep, which resets its ports.
func testSuspend(t *testing.T, g *guest) {
	h := dial(t, g.Socket())
	h.sync(t)
	h.send(t, `{"execute":"guest-suspend-ram","id":"silent"}`)
	event(t, g, "SUSPEND")
	// What is asked of a sleeping guest is answered when it is awake.
	h.send(t, ping)
	if err := h.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if b, err := h.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the sleeping guest sent %q, %v", b, err)
	}
	if err := h.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	qmp(t, g, "system_wakeup", nil)
	event(t, g, "WAKEUP")
	// The suspend itself has no answer.
	h.want(t, pong)
	h.sync(t)
	h.Close()
	dial(t, g.Socket()).sync(t)
	dial(t, g.serial).sync(t)
}

// TestShutdown has guests end in each of the three ways: with the programs of
// BusyBox for it, without any but with its init, and with nothing but a shell as
// the first process.
func TestShutdown(t *testing.T) {
	vm.Need(t)
	agent := vm.Build(t, "./cmd/qemu-ga")
	const without = "rm /bin/poweroff /bin/halt /bin/reboot /bin/shutdown\n"
	for _, guests := range []struct{ name, init, start string }{
		{"programs", "/bin/init", ""},
		{"BusyBox as init", "/bin/init", without},
		{"no init", "/init", without},
	} {
		for _, mode := range []qga.ShutdownMode{qga.Powerdown, qga.Reboot, qga.Halt} {
			t.Run(guests.name+"/"+string(mode), func(t *testing.T) {
				t.Parallel()
				g := &guest{Guest: vm.Start(t, vm.Config{
					Agents:     []vm.Agent{{Program: agent, Port: vm.AgentPort}},
					NoWitness:  true,
					KernelArgs: []string{"rdinit=" + guests.init},
					Files:      map[string]vm.File{"/etc/inittab": {Data: "::once:/init\n::shutdown:/bin/echo init shuts down\n"}},
					Start:      guests.start,
				})}
				testShutdown(t, g, mode)
				// Who did it is also to be seen.
				if got, want := strings.Contains(g.Console(), "init shuts down"), guests.init == "/bin/init"; got != want {
					t.Errorf("shut down by init: %v, want %v", got, want)
				}
			})
		}
	}
}

// testShutdown shuts the guest down and waits for what can be seen of it.
func testShutdown(t *testing.T, g *guest, mode qga.ShutdownMode) {
	h := dial(t, g.Socket())
	h.sync(t)
	h.send(t, `{"execute":"guest-shutdown","arguments":{"mode":%q},"id":"silent"}`, mode)
	if mode == qga.Halt {
		eventually(t, func() error { return halted(t, g) })
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	e, err := g.WaitEvent(ctx, "SHUTDOWN")
	if err != nil {
		t.Fatal(err)
	}
	var data struct{ Reason string }
	if err := json.Unmarshal(e.Data, &data); err != nil {
		t.Fatal(err)
	}
	want := "guest-shutdown"
	if mode == qga.Reboot {
		want = "guest-reset"
	}
	if data.Reason != want {
		t.Errorf("the machine ended by %s, want %s", data.Reason, want)
	}
	if err := g.Wait(ctx); err != nil {
		t.Error(err)
	}
	// All that came before the end is in our hands now.
	if b, err := h.r.ReadByte(); err == nil {
		t.Errorf("the agent answered, beginning with %q", b)
	}
}

// registers are those that tell of a halted processor, in the words of QEMU's
// monitor: whether it waits for an interrupt, and the flags.
var registers = regexp.MustCompile(`(?:EFL|RFL)=([0-9a-f]+).*HLT=([01])`)

// halted returns an error if the guest's only processor still runs. QEMU has no
// event for its halt: the machine stays on. But the processor waits for an
// interrupt with interrupts switched off, and so for ever.
func halted(t *testing.T, g *guest) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	raw, err := g.QMP(ctx, "human-monitor-command", map[string]any{"command-line": "info registers"})
	if err != nil {
		t.Fatal(err)
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		t.Fatal(err)
	}
	found := registers.FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("no registers in %q", text)
	}
	flags, err := strconv.ParseUint(found[1], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	const interrupts = 1 << 9
	if waits := found[2] == "1"; !waits || flags&interrupts != 0 {
		return fmt.Errorf("the processor runs on: waits %v, flags %#x", waits, flags)
	}
	if !strings.Contains(g.Console(), "System halted") {
		return errors.New("the kernel has not said that it halted")
	}
	return nil
}

// TestSuspendToDisk has a guest write its memory to a disk, and end.
func TestSuspendToDisk(t *testing.T) {
	vm.Need(t)
	disk := filepath.Join(t.TempDir(), "swap")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 512<<20); err != nil {
		t.Fatal(err)
	}
	g := &guest{Guest: vm.Start(t, vm.Config{
		Agents:    []vm.Agent{{Program: vm.Build(t, "./cmd/qemu-ga"), Port: vm.AgentPort}},
		NoWitness: true,
		Memory:    256,
		Modules:   []string{"virtio_blk"},
		QEMUArgs:  []string{"-drive", "if=virtio,format=raw,cache=unsafe,file=" + disk},
		Start:     "mkswap /dev/vda && swapon /dev/vda\n",
	})}
	h := dial(t, g.Socket())
	h.sync(t)
	h.send(t, `{"execute":"guest-suspend-disk"}`)
	event(t, g, "SUSPEND_DISK")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := g.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	signature := []byte("S1SUSPEND")
	got := make([]byte, len(signature))
	if _, err := f.ReadAt(got, 4096-10); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, signature) {
		t.Errorf("the swap is marked %q, want %q", got, signature)
	}
}
