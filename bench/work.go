//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	// mb is the megabyte of rates and of memory sizes in the report.
	mb = 1e6
)

// largest is the most that fits into a request: 64 MiB in base64, but for the
// rest of the request.
const largest = 48*mib - 3*kib

// hostWork is what is measured over unix sockets.
func hostWork() []work {
	const settle = 5 * time.Second
	list := []work{
		pings(1, 5000,
			row{name: "ping, 1 in flight: latency", unit: "us"},
			row{name: "ping, 1 in flight: rate", unit: "/s", aim: atLeast(2.5)},
			row{name: "ping, 1 in flight: CPU", unit: "us", aim: atMost(0.4)}),
		pings(64, 500,
			row{name: "ping, 64 in flight: latency of all", unit: "us"},
			row{name: "ping, 64 in flight: rate", unit: "/s", aim: atLeast(30)},
			row{name: "ping, 64 in flight: CPU", unit: "us"}),
		{
			rows:  []row{{name: "connect and sync", unit: "us"}},
			floor: true,
			do:    func(t *trial) { connects(t, 300) },
		},
		{
			// No aim: two round trips by themselves are more than a fifth of what
			// the C agent takes where saving its state costs nothing.
			rows: []row{{name: "file open and close", unit: "us"}},
			do:   func(t *trial) { openClose(t, 300) },
		},
		{
			rows:   []row{{name: "file open and close, state on disk", unit: "us", aim: atMost(0.2)}},
			onDisk: true,
			do:     func(t *trial) { openClose(t, 100) },
		},
	}
	sizes := []struct {
		name        string
		size, times int
		read, write aim
	}{
		{"4 KiB", 4 * kib, 1000, aim{}, aim{}},
		{"64 KiB", 64 * kib, 300, aim{}, aim{}},
		{"1 MiB", mib, 30, aim{}, aim{}},
		{"16 MiB", 16 * mib, 3, aim{}, aim{}},
		{"48 MiB", largest, 2, atLeast(12), atLeast(35)},
	}
	for _, s := range sizes {
		list = append(list, work{
			rows:  []row{{name: "file read " + s.name, unit: "MB/s", aim: s.read}},
			floor: true,
			reply: base64.StdEncoding.EncodedLen(s.size) + len(`{"return": {"count": , "buf-b64": "", "eof": false}}`) + 10,
			do:    func(t *trial) { reads(t, s.size, s.times) },
		})
	}
	for _, s := range sizes {
		list = append(list, work{
			rows:  []row{{name: "file write " + s.name, unit: "MB/s", aim: s.write}},
			floor: true,
			do:    func(t *trial) { writes(t, s.size, s.times) },
		})
	}
	for _, command := range questions {
		list = append(list, question(command, "", 16, 2000))
	}
	return append(list,
		work{
			rows: []row{{name: "exec true, 1 ms poll", unit: "/s", aim: atLeast(1.2)}},
			do:   func(t *trial) { execs(t, 100) },
		},
		work{
			rows: []row{{name: "exec capture of 8 MiB", unit: "MB/s", aim: atLeast(5)}},
			do:   func(t *trial) { captures(t, 8*mib, 3) },
		},
		work{
			rows:  []row{{name: "start to first answer", unit: "ms", aim: atMost(1)}},
			floor: true,
			do:    func(t *trial) { starts(t, 10) },
		},
		work{
			rows: []row{
				{name: "idle: RSS", unit: "kB", aim: atMost(0.9)},
				{name: "idle: private dirty memory", unit: "kB"},
			},
			waits: true,
			do:    func(t *trial) { idleMemory(t, settle) },
		},
		work{
			rows: []row{
				{name: "48 MiB read: peak RSS", unit: "kB", aim: atMost(0.1)},
				{name: "48 MiB read: RSS 5 s later, above idle", unit: "kB", aim: below(idleSlack)},
			},
			waits: true,
			do:    func(t *trial) { readMemory(t, settle) },
		},
		work{
			rows: []row{
				{name: "48 MiB write: peak RSS", unit: "kB", aim: atMost(0.35)},
				{name: "48 MiB write: RSS 5 s later, above idle", unit: "kB", aim: below(idleSlack)},
			},
			waits: true,
			do:    func(t *trial) { writeMemory(t, settle) },
		},
		work{
			rows:  []row{{name: "size of the program", unit: "MB", aim: below(4.5)}},
			waits: true,
			do:    programSize,
		},
	)
}

// idleSlack is how far above its memory before a transfer an agent may be
// afterwards and count as back, in kB: code that has been used for the first
// time is in memory now.
const idleSlack = 512

// pings measures batches of pings, each written at once. Its rows are the
// latency of a batch, the rate, and the CPU time of a ping.
func pings(inFlight, batches int, rows ...row) work {
	return work{rows: rows, floor: true, do: func(t *trial) {
		c := t.dial()
		defer t.hangUp(c)
		batch := bytes.Repeat(pingRequest, inFlight)
		buf := make([]byte, 64*kib)
		rounds := func(n int) []float64 {
			latency := make([]float64, n)
			for i := range latency {
				begin := time.Now()
				c.send(batch)
				c.skipLines(buf, inFlight)
				latency[i] = float64(time.Since(begin).Nanoseconds()) / 1e3
			}
			return latency
		}
		rounds(batches / 10)

		before := t.cpu()
		begin := time.Now()
		latency := rounds(batches)
		took := time.Since(begin)
		n := float64(batches * inFlight)
		t.sample(0, latency...)
		t.sample(1, n/took.Seconds())
		if t.process != nil {
			t.sample(2, float64((t.cpu()-before).Nanoseconds())/1e3/n)
		}
	}}
}

// questions are the commands about the guest that hosts ask over and over.
var questions = []string{"get-fsinfo", "get-disks", "network-get-interfaces", "get-vcpus", "get-osinfo"}

// question measures how often a command is answered, asked one at a time and
// inFlight at once, and the CPU time of an answer, which is the steadier figure
// where the machine does something else as well. What there is to tell is that
// of the machine.
func question(command, prefix string, inFlight, requests int) work {
	name := prefix + command
	rows := []row{
		{name: name + ", 1 in flight", unit: "/s", aim: atLeast(2)},
		{name: fmt.Sprintf("%s, %d in flight", name, inFlight), unit: "/s", aim: atLeast(2)},
	}
	if prefix == "" { // the processor time of what runs in a guest is not known here
		rows = append(rows, row{name: fmt.Sprintf("%s, %d in flight: CPU", name, inFlight), unit: "us"})
	}
	return work{rows: rows, oneCPU: true, do: func(t *trial) {
		c := t.dial()
		defer t.hangUp(c)
		ask := request("guest-"+command, "{}")
		c.ask(ask) // which has to be a success
		buf := make([]byte, 64*kib)
		for i, n := range []int{1, inFlight} {
			batch := bytes.Repeat(ask, n)
			rounds := func(count int) {
				for range count {
					c.send(batch)
					c.skipLines(buf, n)
				}
			}
			rounds(requests / n / 10)

			before := t.cpu()
			begin := time.Now()
			rounds(requests / n)
			answers := float64(requests / n * n)
			t.sample(i, answers/time.Since(begin).Seconds())
			if n > 1 && t.process != nil {
				t.sample(2, float64((t.cpu()-before).Nanoseconds())/1e3/answers)
			}
		}
	}}
}

// cpu returns the CPU time that the process has used; none in a guest.
func (t *trial) cpu() time.Duration {
	if t.process == nil {
		return 0
	}
	used, err := t.process.cpu()
	t.fail(err)
	return used
}

// connects measures what a host does that connects for every command.
func connects(t *trial, n int) {
	t.hangUp(t.dial())
	buf := make([]byte, 4*kib)
	for range n {
		begin := time.Now()
		c := connect(t.socket)
		c.send(syncRequest)
		c.skip(buf)
		t.sample(0, float64(time.Since(begin).Nanoseconds())/1e3)
		t.hangUp(c)
		if t.err != nil {
			return
		}
	}
}

func openClose(t *trial, n int) {
	c := t.dial()
	defer t.hangUp(c)
	path, err := t.put([]byte("contents"))
	t.fail(err)
	open := request("guest-file-open", `{"path":%q}`, path)
	for range n {
		begin := time.Now()
		handle := c.number("return", c.ask(open))
		c.shut(handle)
		t.sample(0, float64(time.Since(begin).Nanoseconds())/1e3)
	}
}

func reads(t *trial, size, n int) {
	data := t.data(size)
	path, err := t.put(data)
	t.fail(err)
	c := t.dial()
	defer t.hangUp(c)
	handle := c.open(path, "r")
	rewind := request("guest-file-seek", `{"handle":%d,"offset":0,"whence":0}`, handle)
	read := request("guest-file-read", `{"handle":%d,"count":%d}`, handle, size)
	buf := make([]byte, mib)
	var spent time.Duration
	for range n {
		c.ask(rewind)
		begin := time.Now()
		c.send(read)
		if got := c.skip(buf); got < size/3*4 {
			c.fail(fmt.Errorf("the reply to a read has only %d bytes", got))
		}
		spent += time.Since(begin)
	}
	t.sample(0, float64(n*size)/mb/spent.Seconds())
	if t.first && !t.idle {
		c.ask(rewind)
		c.expect("buf-b64", c.ask(read), data)
	}
	c.shut(handle)
}

func writes(t *trial, size, n int) {
	data := t.data(size)
	// The file has its pages already, which are the kernel's work.
	path, err := t.put(make([]byte, size))
	t.fail(err)
	c := t.dial()
	defer t.hangUp(c)
	handle := c.open(path, "r+")
	rewind := request("guest-file-seek", `{"handle":%d,"offset":0,"whence":0}`, handle)
	write := writeRequest(handle, data)
	want := fmt.Appendf(nil, `{"return": {"count": %d, "eof": false}}`+"\n", size)
	buf := make([]byte, 4*kib)
	var spent time.Duration
	for range n {
		c.ask(rewind)
		begin := time.Now()
		c.send(write)
		got := c.skip(buf)
		spent += time.Since(begin)
		if !t.idle && !bytes.Equal(buf[:got], want) {
			c.fail(fmt.Errorf("got %s to a write", clip(buf[:got])))
		}
	}
	t.sample(0, float64(n*size)/mb/spent.Seconds())
	if t.first && !t.idle {
		c.checkFile(t, path, handle, data)
	}
	c.shut(handle)
}

// checkFile compares a file, through the agent where there is no other way.
func (c *conn) checkFile(t *trial, path string, handle int, want []byte) {
	if t.process == nil {
		c.ask(request("guest-file-seek", `{"handle":%d,"offset":0,"whence":0}`, handle))
		c.expect("buf-b64", c.ask(request("guest-file-read", `{"handle":%d,"count":%d}`, handle, len(want))), want)
		return
	}
	got, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("what was written to %s is not there", path)
	}
	t.fail(err)
}

func writeRequest(handle int, data []byte) []byte {
	b := fmt.Appendf(nil, `{"execute":"guest-file-write","arguments":{"handle":%d,"buf-b64":"`, handle)
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, "\"}}\n"...)
}

// finish asks for the outcome of a program until there is one, each
// millisecond.
func (c *conn) finish(started []byte) []byte {
	status := request("guest-exec-status", `{"pid":%d}`, c.number("pid", started))
	for {
		reply := c.ask(status)
		// The C agent begins with other members.
		end := reply[max(0, len(reply)-200):]
		if c.err != nil || bytes.Contains(end, []byte(`"exited": true`)) {
			return reply
		}
		ts := unix.NsecToTimespec(time.Millisecond.Nanoseconds())
		_ = unix.Nanosleep(&ts, nil) // shorter is fine
	}
}

func execs(t *trial, n int) {
	c := t.dial()
	defer t.hangUp(c)
	run := request("guest-exec", `{"path":"/bin/true"}`)
	begin := time.Now()
	for range n {
		reply := c.finish(c.ask(run))
		if c.number("exitcode", reply) != 0 {
			c.fail(fmt.Errorf("got %s for true", clip(reply)))
		}
	}
	t.sample(0, float64(n)/time.Since(begin).Seconds())
}

func captures(t *trial, size, n int) {
	data := t.data(size)
	path, err := t.put(data)
	t.fail(err)
	c := t.dial()
	defer t.hangUp(c)
	c.buf = make([]byte, 2*size)
	run := request("guest-exec", `{"path":"/bin/cat","arg":[%q],"capture-output":true}`, path)
	for i := range n {
		begin := time.Now()
		reply := c.finish(c.ask(run))
		t.sample(0, float64(size)/mb/time.Since(begin).Seconds())
		if t.first && i == 0 {
			c.expect("out-data", reply, data)
		}
	}
}

// starts measures from the start of a program to its first answer. The
// process that the trial has is of no use here.
func starts(t *trial, n int) {
	for i := range n {
		begin := time.Now()
		p, err := t.who.start(fmt.Sprintf("%s/%d", t.process.dir, i), 0)
		if err != nil {
			t.fail(err)
			return
		}
		c := p.connect()
		c.ask(pingRequest)
		t.sample(0, time.Since(begin).Seconds()*1e3)
		t.hangUp(c)
		p.stop()
	}
}

// usage samples fields of the process's memory.
func (t *trial) usage(row int, file, field string, offset float64) float64 {
	kb, err := t.process.memory(file, field)
	t.fail(err)
	t.sample(row, kb-offset)
	return kb
}

func idleMemory(t *trial, settle time.Duration) {
	c := t.dial()
	path, err := t.put([]byte("contents"))
	t.fail(err)
	for range 10 {
		c.ask(pingRequest)
		c.ask(request("guest-info", "{}"))
		handle := c.open(path, "r")
		c.ask(request("guest-file-read", `{"handle":%d}`, handle))
		c.shut(handle)
	}
	t.hangUp(c)
	t.fail(t.pause(settle))
	t.usage(0, "smaps_rollup", "Rss", 0)
	t.usage(1, "smaps_rollup", "Private_Dirty", 0)
}

func readMemory(t *trial, settle time.Duration) {
	c := t.dial()
	defer t.hangUp(c)
	path, err := t.put(t.data(largest))
	t.fail(err)
	handle := c.open(path, "r")
	t.transferMemory(c, request("guest-file-read", `{"handle":%d,"count":%d}`, handle, largest), settle)
}

func writeMemory(t *trial, settle time.Duration) {
	c := t.dial()
	defer t.hangUp(c)
	path, err := t.put(nil)
	t.fail(err)
	t.transferMemory(c, writeRequest(c.open(path, "w"), t.data(largest)), settle)
}

// transferMemory samples the peak during a request, and how much more than
// before it there is when the agent has settled.
func (t *trial) transferMemory(c *conn, request []byte, settle time.Duration) {
	idle, err := t.process.memory("smaps_rollup", "Rss")
	t.fail(err)
	buf := make([]byte, mib)
	c.send(request)
	c.skip(buf)
	t.usage(0, "status", "VmHWM", 0)
	t.fail(t.pause(settle))
	t.usage(1, "smaps_rollup", "Rss", idle)
}

func programSize(t *trial) {
	info, err := os.Stat(t.who.program)
	if err != nil {
		t.fail(err)
		return
	}
	t.sample(0, float64(info.Size())/mb)
}
