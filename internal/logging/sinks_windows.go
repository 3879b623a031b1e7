package logging

import (
	"fmt"
	"os"
	"time"
)

// stream is a sink of lines: standard error or a log file.
type stream struct {
	path string // of the log file; empty for standard error
	file *os.File
	buf  []byte
}

// Stderr returns a sink for standard error.
func Stderr() Sink { return &stream{file: os.Stderr} }

// File returns a sink that appends to the file at path, which it creates if
// needed.
func File(path string) (Sink, error) {
	f, err := openLog(path)
	if err != nil {
		return nil, err
	}
	return &stream{path: path, file: f}, nil
}

func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("unable to open specified log file: %w", err)
	}
	return f, nil
}

func (s *stream) Write(t time.Time, level Level, text []byte) bool {
	s.buf = appendLine(s.buf[:0], t, level, text)
	_, err := s.file.Write(s.buf)
	return err == nil
}

func (s *stream) Reopen() error {
	if s.path == "" {
		return nil
	}
	f, err := openLog(s.path)
	if err != nil {
		return err
	}
	s.file.Close() //nolint:errcheck // the messages were written by then
	s.file = f
	return nil
}

func (s *stream) Close() error {
	if s.path == "" {
		return nil // not ours
	}
	return s.file.Close()
}

// Syslog returns Discard: Windows has no syslog.
func Syslog() Sink { return Discard }

// Journal returns Discard: Windows has no journal.
func Journal() Sink { return Discard }
