//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// guestWork is what is measured over virtio-serial. The guest is emulated, so
// it is the ratios that mean something.
func guestWork(quick bool) []work {
	const size = 4 * mib
	// The percentile wants many, of which the C agent needs 0.1 s for some.
	connections := 100
	if quick {
		connections = 50
	}
	list := []work{
		pings(1, 300,
			row{name: "guest: ping, 1 in flight: latency", unit: "us"},
			row{name: "guest: ping, 1 in flight: rate", unit: "/s"}),
		{
			rows: []row{{name: "guest: connect and sync, 99th percentile", unit: "us", quantile: 0.99, aim: below(3000)}},
			do:   func(t *trial) { connects(t, connections) },
		},
		{
			rows: []row{{name: "guest: file read 4 MiB", unit: "MB/s"}},
			do:   func(t *trial) { reads(t, size, 1) },
		},
		{
			rows: []row{{name: "guest: file write 4 MiB", unit: "MB/s"}},
			do:   func(t *trial) { writes(t, size, 1) },
		},
	}
	for _, command := range questions {
		list = append(list, question(command, "guest: ", 16, 200))
	}
	return list
}

// inGuest measures what goes over virtio-serial, with both agents in one
// guest, on two ports.
func (s *suite) inGuest(agent string, major int) error {
	list := guestWork(s.quick)
	progress("booting a guest")
	ports := [...]string{theC: "org.qemu.guest_agent.1", ours: vm.AgentPort}
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	g, err := vm.Boot(ctx, vm.Config{
		Agents: []vm.Agent{
			{Program: vm.CAgent(major), Port: ports[theC], Args: []string{"-t", "/tmp/c"}},
			{Program: vm.Program{Path: agent}, Port: ports[ours], Args: []string{"-t", "/tmp/ours"}},
		},
		NoWitness: true,
		Start:     "mkdir /tmp/c /tmp/ours",
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := g.Stop(context.WithoutCancel(s.ctx)); err != nil {
			progress(err.Error())
		}
	}()
	for _, w := range list {
		w.floor, w.oneCPU = false, false
		err := s.measure(w, func(_ *work, who int) (*trial, func(), error) {
			socket := g.PortSocket(ports[who])
			return &trial{socket: socket, put: func(data []byte) (string, error) { return putThrough(socket, data) }}, func() {}, nil
		})
		if err != nil {
			return fmt.Errorf("%w\nconsole:\n%s", err, g.Console())
		}
	}
	return nil
}

// putThrough makes a file in the guest through the agent itself. There must be
// no other connection: a port has one client at a time.
func putThrough(socket string, data []byte) (string, error) {
	const path = "/tmp/data"
	c := connect(socket)
	defer c.close()
	c.sync()
	handle := c.open(path, "w")
	c.ask(writeRequest(handle, data))
	c.shut(handle)
	return path, c.err
}
