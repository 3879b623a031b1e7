// Package logging writes the agent's log in the C agent's format and levels.
//
// It is made for an agent that must not stand still: a reader of the log that
// does not read costs messages, never time. While file systems are frozen
// nothing is written at all, as whoever writes then may sleep until the thaw,
// with the thaw waiting for him; messages are kept in memory instead.
package logging

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// Level is the importance of a message.
type Level uint8

// The levels, the most important first.
const (
	Error Level = iota
	Critical
	Warning
	Message
	Info
	Debug
)

var levelNames = [...]string{"error", "critical", "warning", "message", "info", "debug"}

// String returns the level as it is written in the log.
func (l Level) String() string { return levelNames[l] }

// Bounds of a message and of what is kept while the log is held.
const (
	maxText        = 8 << 10
	maxHeldRecords = 1024
	maxHeldBytes   = 256 << 10
)

// Sink is a destination of messages.
type Sink interface {
	// Write writes one message, whose text is without control characters. It
	// must not wait for a reader for long; it returns false when the message
	// could not be written. The text is valid only during the call.
	Write(t time.Time, level Level, text []byte) bool

	// Reopen starts the destination anew, for example after a log file was
	// renamed. On failure the old one stays in use.
	Reopen() error

	Close() error
}

// Logger is the log. Its methods may be called concurrently.
type Logger struct {
	lowest atomic.Uint32 // the least important Level that is written
	now    func() time.Time

	mu    sync.Mutex
	log   output
	audit output
	buf   []byte

	holds     int
	reopen    bool // asked for while held
	held      []record
	heldBytes int
	dropped   int // messages that did not fit in held
}

// record is a message that waits for Release.
type record struct {
	time  time.Time
	level Level
	audit bool
	text  string
}

// New returns a logger that writes to log, and accounting messages to audit.
// Unless verbose, only the levels Error and Critical are written, as in the
// C agent.
func New(log, audit Sink, verbose bool) *Logger {
	l := &Logger{now: time.Now, log: output{sink: log}, audit: output{sink: audit}}
	l.lowest.Store(uint32(Critical))
	if verbose {
		l.lowest.Store(uint32(Debug))
	}
	return l
}

// Enabled reports whether messages of the level are written. It is for callers
// whose arguments are costly to make.
func (l *Logger) Enabled(level Level) bool { return uint32(level) <= l.lowest.Load() }

// Errorf logs at level Error.
func (l *Logger) Errorf(format string, args ...any) { l.Logf(Error, format, args...) }

// Criticalf logs at level Critical.
func (l *Logger) Criticalf(format string, args ...any) { l.Logf(Critical, format, args...) }

// Warningf logs at level Warning.
func (l *Logger) Warningf(format string, args ...any) { l.Logf(Warning, format, args...) }

// Messagef logs at level Message.
func (l *Logger) Messagef(format string, args ...any) { l.Logf(Message, format, args...) }

// Infof logs at level Info.
func (l *Logger) Infof(format string, args ...any) { l.Logf(Info, format, args...) }

// Debugf logs at level Debug.
func (l *Logger) Debugf(format string, args ...any) { l.Logf(Debug, format, args...) }

// Logf logs at the given level. The message is one line whatever the arguments
// hold: control characters and bytes that are not UTF-8 are escaped.
func (l *Logger) Logf(level Level, format string, args ...any) {
	if !l.Enabled(level) {
		return
	}
	text := fmt.Sprintf(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(level, false, text)
}

// Auditf logs what the host did to this machine. It goes to the accounting sink
// whatever the level, and not to the log.
func (l *Logger) Auditf(format string, args ...any) {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(Info, true, text)
}

func (l *Logger) put(level Level, audit bool, text string) {
	if l.holds == 0 {
		l.write(l.now(), level, audit, text)
		return
	}
	if len(text) > maxText {
		text = text[:maxText]
	}
	l.held = append(l.held, record{l.now(), level, audit, text})
	l.heldBytes += len(text)
	drop := 0
	for len(l.held)-drop > maxHeldRecords || l.heldBytes > maxHeldBytes {
		l.heldBytes -= len(l.held[drop].text)
		drop++
	}
	l.dropped += drop
	// A full buffer moves by one record each time. It is small, and a frozen
	// agent accepts few commands.
	l.held = append(l.held[:0], l.held[drop:]...)
}

func (l *Logger) write(t time.Time, level Level, audit bool, text string) {
	l.buf = appendEscaped(l.buf[:0], text)
	if audit {
		l.audit.write(t, level, l.buf)
	} else {
		l.log.write(t, level, l.buf)
	}
}

// Hold keeps all messages in memory until Release is called as many times.
// When it returns, nothing is being written any more.
func (l *Logger) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds++
}

// Release ends a Hold and writes what was logged since, with the times of then.
// The memory is bounded; the oldest messages may be missing, which is noted.
func (l *Logger) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds == 0 {
		return
	}
	l.holds--
	if l.holds > 0 {
		return
	}
	if l.reopen {
		l.reopen = false
		if err := l.log.sink.Reopen(); err != nil {
			l.log.write(l.now(), Error, []byte(err.Error()))
		}
	}
	if l.dropped > 0 {
		l.log.write(l.now(), Warning, fmt.Appendf(nil, "the oldest %d messages from the time when logging was held are lost", l.dropped))
	}
	for _, r := range l.held {
		l.write(r.time, r.level, r.audit, r.text)
	}
	l.held, l.heldBytes, l.dropped = nil, 0, 0
}

// SetSink replaces the destination of the log and closes the former one.
func (l *Logger) SetSink(s Sink) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.log.sink
	l.log = output{sink: s}
	return old.Close()
}

// Reopen opens the log file anew, so that it can be rotated. While messages are
// held that is left to Release: on a frozen file system it would wait.
func (l *Logger) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds > 0 {
		l.reopen = true
		return nil
	}
	return l.log.sink.Reopen()
}

// Close closes the sinks. Nothing must be logged afterwards.
func (l *Logger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.log.sink.Close()
	if errAudit := l.audit.sink.Close(); err == nil {
		err = errAudit
	}
	return err
}

// output is a sink and the count of messages that it did not take.
type output struct {
	sink Sink
	lost int
}

func (o *output) write(t time.Time, level Level, text []byte) {
	if o.lost > 0 {
		notice := fmt.Appendf(nil, "%d messages are lost because nobody took them", o.lost)
		if !o.sink.Write(t, Warning, notice) {
			o.lost++
			return
		}
		o.lost = 0
	}
	if !o.sink.Write(t, level, text) {
		o.lost++
	}
}

// Discard is a sink that drops everything.
var Discard Sink = discard{}

type discard struct{}

func (discard) Write(time.Time, Level, []byte) bool { return true }
func (discard) Reopen() error                       { return nil }
func (discard) Close() error                        { return nil }

// appendEscaped appends text, cut to its bound, with everything escaped that
// would break the line or the terminal of a reader.
func appendEscaped(b []byte, text string) []byte {
	end := len(b) + maxText
	for i := 0; i < len(text); {
		if len(b) >= end {
			return append(b, "..."...)
		}
		if c := text[i]; c >= ' ' && c < 0x7f {
			b = append(b, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == utf8.RuneError && size == 1, r < utf8.RuneSelf:
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'x', digits[text[i]>>4], digits[text[i]&0xf])
		case !unicode.IsPrint(r):
			b = append(b, `\u`...)
			b = strconv.AppendInt(b, int64(r), 16)
		default:
			b = append(b, text[i:i+size]...)
		}
		i += size
	}
	return b
}

// appendLine appends a message as a line of the C agent's log.
func appendLine(b []byte, t time.Time, level Level, text []byte) []byte {
	b = strconv.AppendInt(b, t.Unix(), 10)
	b = append(b, '.')
	micro := strconv.AppendInt(nil, int64(t.Nanosecond()/1000)+1_000_000, 10)
	b = append(b, micro[1:]...) // without the 1 that keeps the leading zeros
	b = append(b, ": "...)
	b = append(b, level.String()...)
	b = append(b, ": "...)
	b = append(b, text...)
	return append(b, '\n')
}
