//go:build linux

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
)

// Event is something that QEMU reported by itself.
type Event struct {
	Name string
	Data json.RawMessage
}

// monitor is QEMU's side door, a connection that speaks QMP.
type monitor struct {
	conn net.Conn

	calling sync.Mutex // one command at a time, answers carry no name
	answers chan answer

	mu     sync.Mutex
	events []Event
	news   chan struct{} // closed and replaced when events or err change
	err    error         // why there will be no more
}

type answer struct {
	Return json.RawMessage
	Error  *struct{ Class, Desc string }
}

// monitorPair returns a monitor and the end of its connection that QEMU is to
// inherit. An inherited connection needs no path and no waiting for QEMU to
// listen on it.
func monitorPair() (*monitor, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "qmp"), os.NewFile(uintptr(fds[1]), "qmp")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return &monitor{conn: conn, answers: make(chan answer, 1), news: make(chan struct{})}, theirs, nil
}

// read hands out answers and collects events until the connection ends.
func (m *monitor) read() {
	dec := json.NewDecoder(m.conn)
	for {
		var msg struct {
			answer
			Event string
			Data  json.RawMessage
			QMP   json.RawMessage // the greeting
		}
		err := dec.Decode(&msg)
		switch {
		case err != nil:
			if errors.Is(err, io.EOF) {
				err = errors.New("QEMU has ended")
			}
			m.note(func() { m.err = err })
			close(m.answers)
			return
		case msg.QMP != nil:
		case msg.Event != "":
			m.note(func() { m.events = append(m.events, Event{msg.Event, msg.Data}) })
		default:
			m.answers <- msg.answer
		}
	}
}

// note changes what waitEvent waits for.
func (m *monitor) note(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
	close(m.news)
	m.news = make(chan struct{})
}

func (m *monitor) call(ctx context.Context, command string, args any) (json.RawMessage, error) {
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	line, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}

	m.calling.Lock()
	defer m.calling.Unlock()
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	select {
	case a, ok := <-m.answers:
		switch {
		case !ok:
			return nil, fmt.Errorf("%s: %w", command, m.err)
		case a.Error != nil:
			return nil, fmt.Errorf("%s: %s: %s", command, a.Error.Class, a.Error.Desc)
		}
		return a.Return, nil
	case <-ctx.Done():
		// The answer may still come and would be taken for the next one's.
		m.conn.Close()
		return nil, fmt.Errorf("%s: %w", command, context.Cause(ctx))
	}
}

func (m *monitor) waitEvent(ctx context.Context, name string) (Event, error) {
	for {
		m.mu.Lock()
		news, err := m.news, m.err
		if i := slices.IndexFunc(m.events, func(e Event) bool { return e.Name == name }); i >= 0 {
			event := m.events[i]
			m.events = m.events[i+1:]
			m.mu.Unlock()
			return event, nil
		}
		m.mu.Unlock()
		if err != nil {
			return Event{}, fmt.Errorf("event %s: %w", name, err)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Event{}, fmt.Errorf("event %s: %w", name, context.Cause(ctx))
		}
	}
}
