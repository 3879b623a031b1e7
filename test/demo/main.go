//go:build linux

// Command demo boots a guest with our agent in it and shows, with the host
// tool, what the agent answers through the virtio-serial port. It expects both
// programs in bin/; "make demo" sees to that.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/bellhop-vm/bellhop/test/vm"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	fmt.Println("Booting a Linux guest under QEMU's software emulation, with bin/qemu-ga in it.")
	g, err := boot(ctx)
	if err != nil {
		return err
	}
	defer func() {
		// To be done also if the user has interrupted us.
		if stopErr := g.Stop(context.WithoutCancel(ctx)); err == nil {
			err = stopErr
		}
	}()
	fmt.Printf("Its agent was started after %.1f s. From here on, these are real answers from the guest.\n", g.BootTime().Seconds())

	t := tour{ctx: ctx, target: "unix:" + g.Socket()}
	t.show("Is the agent there?", "ping")
	t.show("Which agent is it, and what can it do?", "info")
	t.show("What runs in the guest?", "call", "guest-get-osinfo")

	var started struct{ PID int }
	t.show("Run a command in the guest ...", "call", "guest-exec",
		`{"path":"sh","arg":["-c","echo Hello from $(hostname), up $(cut -d. -f1 /proc/uptime) seconds"],"capture-output":true}`)
	t.decode(&started)
	time.Sleep(time.Second / 2) // emulation takes its time
	t.show("... and fetch what it said, in base64.", "call", "guest-exec-status", fmt.Sprintf(`{"pid":%d}`, started.PID))

	var handle int
	t.show("Open a file ...", "call", "guest-file-open", `{"path":"/etc/os-release"}`)
	t.decode(&handle)
	t.show("... read from it ...", "call", "guest-file-read", fmt.Sprintf(`{"handle":%d,"count":60}`, handle))
	t.show("... and close it.", "call", "guest-file-close", fmt.Sprintf(`{"handle":%d}`, handle))
	return t.err
}

// boot boots the guest and prints a dot each half second meanwhile.
func boot(ctx context.Context) (*vm.Guest, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	booted := make(chan struct{})
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		for tick := time.Tick(time.Second / 2); ; {
			select {
			case <-tick:
				fmt.Print(".")
			case <-booted:
				fmt.Println()
				return
			}
		}
	}()
	g, err := vm.Boot(ctx, vm.Config{
		Agents:    []vm.Agent{{Program: vm.Program{Path: "bin/qemu-ga"}, Port: vm.AgentPort}},
		NoWitness: true,
	})
	close(booted)
	<-printed
	return g, err
}

// tour shows one command of bellhop after another. Once one has failed, the
// rest is skipped.
type tour struct {
	ctx    context.Context
	target string
	out    []byte // of the last command
	err    error
}

// show prints a question, the command line that asks it, and the output.
// Bellhop's arguments are its verb, the target and the rest.
func (t *tour) show(question, verb string, args ...string) {
	if t.err != nil {
		return
	}
	args = append([]string{verb, t.target}, args...)
	fmt.Printf("\n%s\n$ bin/bellhop", question)
	for _, arg := range args {
		fmt.Print(" ", quote(arg))
	}
	fmt.Println()

	ctx, cancel := context.WithTimeout(t.ctx, 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "bin/bellhop", args...)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err := cmd.Run()
	t.out = out.Bytes()
	fmt.Println(strings.TrimRight(out.String(), "\n"))
	if err != nil {
		t.err = fmt.Errorf("bellhop %s: %w", verb, err)
	}
}

// decode takes the last output for JSON.
func (t *tour) decode(v any) {
	if t.err != nil {
		return
	}
	if err := json.Unmarshal(t.out, v); err != nil {
		t.err = fmt.Errorf("bellhop printed %q: %w", t.out, err)
	}
}

// quote writes an argument as it would be typed into a shell.
func quote(arg string) string {
	if strings.ContainsAny(arg, " \"'$&|;<>(){}[]*?!\\`~#") || arg == "" {
		return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return arg
}
