//go:build unix

package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// DefaultGrace is how long after the end of a program whoever inherited its
// output may hold up the news of it, unless configured: enough for the last
// words of a pipeline, and nothing that a person would notice.
const DefaultGrace = 2 * time.Second

// Config is what Processes need.
type Config struct {
	// Grace is how long after the end of a program its captured output is
	// waited for when somebody else holds it open, such as a daemon that the
	// program left behind. Later output is thrown away. Zero is as long as it
	// takes, which is what the C agent does.
	Grace time.Duration
	// Lifetime is how long an outcome is kept after its first report; nil is
	// DefaultLifetime. With zero it is forgotten with the report, as by the
	// C agent.
	Lifetime *time.Duration
	// MaxRecords bounds how many programs are running or remembered, MaxOutput
	// how many bytes of their output are kept; zero stands for the defaults.
	MaxRecords, MaxOutput int
	// Audit records what was run; asking for the outcome leaves no trace. Nil
	// records nothing.
	Audit func(format string, args ...any)
}

// Processes are the programs that were started, and are running or not yet
// forgotten. They are safe for concurrent use.
type Processes struct {
	grace time.Duration
	audit func(format string, args ...any)

	mu sync.Mutex
	records
	pendingInput int // bytes that wait for programs to read them
	draining     int // streams that are read although nobody wants to know
}

// New returns Processes without any. From now on no descriptor that the agent
// was started with is inherited by the programs it starts.
func New(c Config) *Processes {
	hideDescriptors()
	p := &Processes{grace: c.Grace, audit: c.Audit}
	p.records = records{limits: limitsOf(c), mu: &p.mu, byPID: map[int64]*record{}}
	if p.audit == nil {
		p.audit = func(string, ...any) {}
	}
	return p
}

// Commands returns the commands on the programs of p.
func Commands(p *Processes) []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.Exec, p.exec),
		agent.HandleStream(qga.ExecStatus, p.status),
	}
}

func (p *Processes) exec(_ context.Context, args qga.ExecArgs) (qga.ExecResult, error) {
	argv := append([]string{args.Path}, args.Arg...)
	p.audit("guest-exec called: \"%s\"", strings.Join(argv, " "))

	p.mu.Lock()
	err := p.takePlace()
	p.mu.Unlock()
	if err != nil {
		return qga.ExecResult{}, err
	}
	pid, err := p.start(args, argv)
	if err != nil {
		p.mu.Lock()
		p.places--
		p.mu.Unlock()
		return qga.ExecResult{}, err
	}
	return qga.ExecResult{PID: int64(pid)}, nil
}

// start starts a program and all that serves it. The error is ready for the
// client.
func (p *Processes) start(args qga.ExecArgs, argv []string) (int, error) {
	s, err := newStdio(args)
	if err != nil {
		return 0, fmt.Errorf("Failed to create pipe for communicating with child process (%s)", strerror.Text(err))
	}
	defer s.closeTheirs()
	if !p.takeInput(len(s.rest)) {
		s.closeOurs()
		return 0, errors.New("programs that were started before have too much input yet to read")
	}
	env := args.Env
	if env == nil {
		env = os.Environ()
	}
	c, err := launch(args.Path, argv, env, s.theirs)
	if err != nil {
		p.returnInput(len(s.rest))
		s.closeOurs()
		return 0, fmt.Errorf("Failed to execute child process \u201C%s\u201D (%s)", args.Path, strerror.Text(err))
	}

	r := &record{pid: int64(c.pid)}
	var readers sync.WaitGroup
	for i, pipe := range s.output {
		if pipe != nil {
			out := new(stream)
			r.streams[i] = out
			readers.Add(1)
			go p.capture(r, out, pipe, &readers)
		}
	}
	if s.input != nil {
		go p.feed(s.input, bytes.Clone(s.rest)) // the request's memory will not stay
	}
	p.mu.Lock()
	p.insert(r)
	p.mu.Unlock()
	go p.watch(r, c, s.input, s.output, &readers)
	return c.pid, nil
}

// watch waits for the end of a program and of its output.
func (p *Processes) watch(r *record, c child, input *os.File, output [2]*os.File, readers *sync.WaitGroup) {
	exitCode, signal := c.wait()
	if p.grace > 0 {
		end := time.Now().Add(p.grace)
		if input != nil {
			// It may be closed by now; then nobody waits for it either.
			_ = input.SetWriteDeadline(end)
		}
		for _, pipe := range output {
			if pipe != nil {
				_ = pipe.SetReadDeadline(end)
			}
		}
	}
	readers.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(r, exitCode, signal)
}

// capture collects a program's output until its end, or until watch has had
// enough of waiting. In the latter case it goes on to read, and to forget: a
// daemon that still writes there should not be killed for it.
func (p *Processes) capture(r *record, s *stream, pipe *os.File, readers *sync.WaitGroup) {
	defer pipe.Close()
	err := s.fill(pipe, func(n int) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.reserve(r, n)
	})
	readers.Done()
	if !errors.Is(err, os.ErrDeadlineExceeded) || !p.beginDraining() {
		return
	}
	defer p.endDraining()
	if pipe.SetReadDeadline(time.Time{}) == nil {
		_, _ = discard(pipe) // to its end, whatever that is
	}
}

func (p *Processes) beginDraining() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining == p.maxDraining {
		return false
	}
	p.draining++
	return true
}

func (p *Processes) endDraining() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining--
}

// feed writes a program's input, as far as it wants it.
func (p *Processes) feed(pipe *os.File, input []byte) {
	_, _ = pipe.Write(input) // a program need not read
	pipe.Close()
	p.returnInput(len(input))
}

// takeInput takes room for input that has to be kept. A single program may have
// as much as fits into a request.
func (p *Processes) takeInput(n int) bool {
	if n == 0 {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pendingInput > 0 && p.pendingInput+n > p.maxInput {
		return false
	}
	p.pendingInput += n
	return true
}

func (p *Processes) returnInput(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pendingInput -= n
}

func (p *Processes) status(_ context.Context, args qga.ExecStatusArgs, w *wire.Writer) error {
	p.mu.Lock()
	r := p.byPID[args.PID]
	if r == nil {
		p.mu.Unlock()
		return fmt.Errorf("PID %d does not exist", args.PID)
	}
	if !r.done {
		p.mu.Unlock()
		w.Raw(`{"exited": false}`)
		return nil
	}
	o := r.outcome
	for _, s := range o.streams {
		s.hold()
	}
	p.report(r)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range o.streams {
			s.release()
		}
	}()
	o.write(w)
	return nil
}

// An outcome is what is told of a program that is gone. The streams do not
// change any more; they may be replaced.
type outcome struct {
	exitCode, signal int // -1: not that way
	streams          [2]*stream
}

// write writes the reply, its members in the C agent's order.
func (o outcome) write(w *wire.Writer) {
	w.Raw("{")
	number := func(name string, n int) {
		if n >= 0 {
			w.Raw(name)
			w.Int(int64(n))
			w.Raw(", ")
		}
	}
	data := func(name string, s *stream) {
		if s.any() {
			w.Raw(name)
			w.Base64(s.data)
			w.Raw(`", `)
		}
	}
	truncated := func(name string, s *stream) {
		if s.any() {
			w.Raw(name)
			w.Bool(s.truncated)
			w.Raw(", ")
		}
	}
	out, err := o.streams[0], o.streams[1]
	number(`"exitcode": `, o.exitCode)
	data(`"err-data": "`, err)
	data(`"out-data": "`, out)
	truncated(`"err-truncated": `, err)
	number(`"signal": `, o.signal)
	truncated(`"out-truncated": `, out)
	w.Raw(`"exited": true}`)
}
