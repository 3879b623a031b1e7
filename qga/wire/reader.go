// Package wire is the byte stream between a guest agent and its client: JSON
// values in both directions, one after another, in the dialect of the C agent.
//
// The Reader turns bytes into values, whatever the pieces they come in. The
// Writer turns Go values into bytes. Decode and Encode convert between values
// and the argument and result types of package qga, with the protocol's checks
// and error texts. Nothing here knows a command.
package wire

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"io"
	"math"
	"strconv"

	"github.com/segmentio/asm/ascii"

	"github.com/bellhop-vm/bellhop/internal/buffer"
	"github.com/bellhop-vm/bellhop/qga"
)

// The limits of one top-level value. They are the C agent's, so that whatever
// it accepts is accepted here.
const (
	maxTokenBytes = 64<<20 - 1
	maxTokens     = 2 << 20
	maxDepth      = 1024

	// maxReplyBytes takes the place of maxTokenBytes on the client's side:
	// the largest guest-file-read alone is 64 MiB in base64.
	maxReplyBytes = 128 << 20
)

const (
	// smallInput is the size of the input buffer as long as the peer sends
	// little at a time, largeInput once it fills that: little enough to stay in
	// a processor's cache from the read to the tape.
	smallInput = 4 << 10
	largeInput = 64 << 10
	// packFrom is the length from which on a string is packed.
	packFrom = 1 << 10
	// maxSyntaxError is how long an error's text may be, but for what all begin
	// with. It is the C agent's, which cuts off the rest.
	maxSyntaxError = 1023
	// idleTape is how large a tape may be and yet be kept for ever.
	idleTape = 16 << 10
)

// A Reader finds one value after another in a stream. It never fails for good:
// after bytes that are not JSON it reports an error and goes on at the next
// byte that may begin something new.
//
// A value is complete, and is reported, at its last byte: nothing has to
// follow, no newline and no further read. Only a bare number or keyword at top
// level ends where the next byte is none of its own.
type Reader struct {
	src io.Reader

	in       []byte
	pos, end int

	tape []byte
	// done says that the tape holds a value already returned.
	done bool

	lex   lexState
	quote byte
	// special says that the string has an escape or a byte outside ASCII.
	special bool
	// start is where the current token's text begins on the tape.
	start int
	// packed is how many bytes there are the data of its base64. A string that
	// is raw is not packed, or not any further.
	packed   int
	raw      bool
	packFrom int

	want   expectation
	frames []frame
	// braces and brackets count what is open, as tokens go, whether or not
	// they are where they belong: a value with an error in it ends when both
	// are zero, or when one is negative.
	braces, brackets int
	// failed says that this value had its error; what is left of it is read
	// and dropped.
	failed       bool
	tokens, size int
	// limit bounds size.
	limit int
}

// NewReader returns a Reader of the stream src.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, in: make([]byte, smallInput), packFrom: packFrom, limit: maxTokenBytes}
}

// NewReplyReader returns a Reader of the replies in the stream src, which may
// be larger than requests.
func NewReplyReader(src io.Reader) *Reader {
	return &Reader{src: src, in: make([]byte, smallInput), packFrom: packFrom, limit: maxReplyBytes}
}

type lexState uint8

const (
	lexStart lexState = iota
	lexString
	lexEscape
	lexKeyword
	lexMinus
	lexZero
	lexInt
	lexDot
	lexFraction
	lexExp
	lexExpSign
	lexExpDigits
	lexRecover
)

type expectation uint8

const (
	wantValue expectation = iota
	wantValueOrEnd
	wantKey
	wantKeyOrEnd
	wantColon
	wantComma
)

// A frame is an object or a list whose end has not come yet.
type frame struct {
	object  bool
	at      int // offset of its head on the tape
	key     int // offset of the current member's name
	members int
	// names holds the offsets of the members' names by hash, once there are
	// too many to compare one by one.
	names map[uint64]int
}

var hashSeed = maphash.MakeSeed()

// A SyntaxError is what was not JSON in the stream. The Reader can go on.
type SyntaxError = qga.Error

func syntaxError(text string) *SyntaxError {
	return qga.Failure("JSON parse error, " + text[:min(len(text), maxSyntaxError)])
}

// Read waits for the next value. It returns a *SyntaxError for what is not
// JSON, and the stream's own error, io.EOF among them, when that ends.
func (r *Reader) Read() (Value, error) {
	for {
		v, ok, err := r.Next()
		if err != nil {
			return Value{}, err
		}
		if ok {
			return v, nil
		}
		if err := r.Fill(); err != nil {
			return Value{}, err
		}
	}
}

// Next returns the next value of what has been read so far. It returns false
// when it needs more, and the error is a *SyntaxError.
func (r *Reader) Next() (v Value, ok bool, err error) {
	if r.done {
		r.done = false
		r.begin()
	}
	for r.pos < r.end || r.overlong() {
		complete, err := r.step()
		if err != nil {
			return Value{}, false, err
		}
		if complete {
			r.done = true
			return Value{r.tape, 0}, true, nil
		}
	}
	return Value{}, false, nil
}

// Fill reads once from the stream. It is to be called when Next has returned
// false.
func (r *Reader) Fill() error {
	n, err := r.read(r.in)
	r.pos, r.end = 0, n
	if n == len(r.in) && n < largeInput {
		// The bytes are taken over by the next call of Next, which has to
		// come before the next of Fill.
		r.in = append(make([]byte, 0, largeInput), r.in...)[:largeInput]
	}
	return err
}

// read reads once. It returns no error along with bytes: a stream that ended
// says so again.
func (r *Reader) read(b []byte) (int, error) {
	n, err := r.src.Read(b)
	if n > 0 {
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

// Idle reports whether nothing is left to be parsed and no value has begun.
func (r *Reader) Idle() bool {
	return r.pos == r.end && r.lex == lexStart && (r.done || (len(r.tape) == 0 && !r.failed))
}

// Large reports whether the Reader holds memory that Trim would give back.
func (r *Reader) Large() bool {
	return cap(r.tape) > idleTape || len(r.in) > smallInput
}

// Trim gives back the memory that a large value needed, unless one is on its
// way. Values returned so far become invalid.
func (r *Reader) Trim() {
	if !r.Idle() {
		return
	}
	buffer.Release(r.tape)
	r.tape, r.done = nil, false
	r.begin()
	r.in, r.pos, r.end = make([]byte, smallInput), 0, 0
}

// Lend leaves the memory of the value returned last to those who use it, and gives
// it back when the channel is closed.
func (r *Reader) Lend(until <-chan struct{}) {
	tape := r.tape
	r.tape = nil
	go func() {
		<-until
		buffer.Release(tape)
	}()
}

// Close gives back all memory. The Reader must not be used any more.
func (r *Reader) Close() {
	buffer.Release(r.tape)
	r.tape, r.in, r.pos, r.end = nil, nil, 0, 0
}

// begin gets ready for a new top-level value.
func (r *Reader) begin() {
	r.tape, r.packed = r.tape[:0], 0
	r.want = wantValue
	clear(r.frames)
	r.frames = r.frames[:0]
	r.braces, r.brackets = 0, 0
	r.failed = false
	r.tokens, r.size = 0, 0
}

// step consumes some input: a token, or what there is of one.
func (r *Reader) step() (complete bool, err error) {
	switch r.lex {
	case lexStart:
		return r.stepStart()
	case lexString:
		return r.stepString()
	case lexEscape:
		c := r.in[r.pos]
		r.pos++
		if c < 0x20 || c >= 0xFE {
			return false, r.stray(c)
		}
		r.lex = lexString
		return false, r.keepByte(c)
	case lexKeyword:
		return r.stepKeyword()
	case lexRecover:
		for r.pos < r.end && !recovers(r.in[r.pos]) {
			r.pos++
		}
		if r.pos < r.end {
			r.lex = lexStart
		}
		return false, nil
	default:
		return r.stepNumber()
	}
}

// recovers reports whether after a lexical error c may begin something new.
func recovers(c byte) bool {
	switch c {
	case '{', '}', '[', ']', ':', ',':
		return true
	}
	return c < 0x20 && c != '\t' || c >= 0xFE
}

func (r *Reader) stepStart() (bool, error) {
	c := r.in[r.pos]
	r.pos++
	switch c {
	case ' ', '\t', '\n', '\r':
		return false, nil
	case '{':
		r.braces++
		return r.token(c, 1)
	case '}':
		r.braces--
		return r.token(c, 1)
	case '[':
		r.brackets++
		return r.token(c, 1)
	case ']':
		r.brackets--
		return r.token(c, 1)
	case ':', ',':
		return r.token(c, 1)
	case '"', '\'':
		r.lex, r.quote, r.special = lexString, c, false
		r.packed, r.raw = 0, r.failed || r.want == wantKey || r.want == wantKeyOrEnd
		if !r.failed {
			if !r.reserve(headSize) {
				return false, r.fail("JSON token size limit exceeded")
			}
			r.head(String)
		}
		r.start = len(r.tape)
		// Most strings are short, and all there. The token's size is looked
		// at soon.
		b := r.in[r.pos:r.end]
		if n := plainShort(b, c); !r.failed && n < len(b) && b[n] == c && r.reserve(n) {
			r.tape = append(r.tape, b[:n]...)
			r.pos += n + 1
			r.lex = lexStart
			return r.token('s', n+2)
		}
		return r.stepString()
	case '-':
		r.lex = lexMinus
	case '0':
		r.lex = lexZero
	case '1', '2', '3', '4', '5', '6', '7', '8', '9':
		r.lex = lexInt
	default:
		if c < 'a' || c > 'z' {
			r.start = len(r.tape)
			return false, r.stray(c)
		}
		r.lex = lexKeyword
	}
	r.start = len(r.tape)
	return false, r.keepByte(c)
}

func (r *Reader) stepString() (bool, error) {
	if r.overlong() {
		return false, r.fail("JSON token size limit exceeded")
	}
	b := r.in[r.pos:r.end]
	n := plainShort(b, r.quote)
	if n == shortPlain {
		n = r.pack(b)
		r.pos += n
		b = b[n:]
		n = plain(b, r.quote)
	}
	if err := r.keep(b[:n]); err != nil {
		return false, err
	}
	r.pos += n
	if r.pos == r.end {
		return false, nil
	}
	c := r.in[r.pos]
	switch {
	case c == r.quote:
		r.pos++
		r.lex = lexStart
		if r.failed {
			return r.token('s', 0)
		}
		return r.token('s', r.length()+2)
	case c == '\\':
		r.pos++
		r.lex, r.special = lexEscape, true
		return false, r.keepByte(c)
	case c < 0x20 || c >= 0xFE:
		r.pos++
		return false, r.stray(c)
	}
	// A run of DEL and bytes outside ASCII.
	r.special = true
	n = 1
	for r.pos+n < r.end && 0x7F <= r.in[r.pos+n] && r.in[r.pos+n] < 0xFE {
		n++
	}
	b = r.in[r.pos : r.pos+n]
	r.pos += n
	return false, r.keep(b)
}

// pack takes what it can of b, more of a string's text, and puts it on the tape
// as the data of which it is the base64. A payload of tens of megabytes gets
// into memory once, as a quarter less, and out of the cache of the processor
// that has just received it.
//
// Only whole groups of four characters are packed, without padding. Whatever
// else comes ends the packing for the rest of the string.
func (r *Reader) pack(b []byte) (n int) {
	if r.raw || r.packed == 0 && r.length()+len(b) < r.packFrom {
		return 0
	}
	if i := bytes.IndexByte(b, r.quote); i >= 0 {
		b = b[:i]
	}
	b = bytes.TrimRight(b, "=")
	if r.packed == 0 && r.length()+len(b) < r.packFrom || r.size+r.length()+len(b) > r.limit {
		return 0
	}
	from := r.start + r.packed
	if loose := len(r.tape) - from; loose > 0 {
		// A group that is not complete yet, or what came before it was clear
		// that there will be a lot.
		n = -loose & 3
		if n > len(b) || !r.reserve(n) {
			return 0
		}
		text := append(r.tape[from:], b[:n]...)
		if !allSextets(text) {
			r.raw = true
			return 0
		}
		data, _ := decodeBase64(text)
		r.tape = r.tape[:from+len(data)]
		r.packed += len(data)
	}
	for len(b)-n >= 4 {
		p := b[n:min(n+base64Piece, len(b))]
		p = p[:len(p)&^3]
		if !r.reserve(len(p)) {
			break
		}
		data, ok := decodeGroups(r.tape[len(r.tape):len(r.tape)+len(p)], p)
		if !ok {
			r.raw = true
			break
		}
		r.tape = r.tape[:len(r.tape)+len(data)]
		r.packed += len(data)
		n += len(p)
	}
	return n
}

// shortPlain is how far plainShort looks.
const shortPlain = 32

// plainShort is plain for the first bytes of b, which are often all that matter.
func plainShort(b []byte, quote byte) int {
	b = b[:min(len(b), shortPlain)]
	for i, c := range b {
		if c-0x20 >= 0x7F-0x20 || c == quote || c == '\\' {
			return i
		}
	}
	return len(b)
}

// plain returns how many bytes at the beginning of a string's rest are just
// text: ASCII, no control character, no escape, no closing quote.
func plain(b []byte, quote byte) int {
	const piece = 16 << 10
	n := 0
	for n < len(b) {
		p := b[n:min(n+piece, len(b))]
		end := len(p)
		if i := bytes.IndexByte(p, quote); i >= 0 {
			end = i
		}
		if i := bytes.IndexByte(p[:end], '\\'); i >= 0 {
			end = i
		}
		if !ascii.ValidPrint(p[:end]) {
			for i, c := range p[:end] {
				if c < 0x20 || c >= 0x7F {
					return n + i
				}
			}
		}
		n += end
		if end < len(p) {
			return n
		}
	}
	return n
}

func (r *Reader) stepKeyword() (bool, error) {
	for r.pos < r.end {
		c := r.in[r.pos]
		if c < 'a' || c > 'z' {
			r.lex = lexStart
			return r.token('k', len(r.tape)-r.start)
		}
		r.pos++
		if err := r.keepByte(c); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (r *Reader) stepNumber() (bool, error) {
	for r.pos < r.end {
		c := r.in[r.pos]
		next, ends := nextNumber(r.lex, c)
		if ends {
			r.lex = lexStart
			return r.token('0', len(r.tape)-r.start)
		}
		r.pos++
		if next == lexStart {
			return false, r.stray(c)
		}
		r.lex = next
		if err := r.keepByte(c); err != nil {
			return false, err
		}
	}
	return false, nil
}

// nextNumber returns the state of a number after one more byte. The number may
// end before that byte; where neither is allowed, the state is lexStart.
func nextNumber(s lexState, c byte) (next lexState, ends bool) {
	digit := '0' <= c && c <= '9'
	exp := c == 'e' || c == 'E'
	switch s {
	case lexMinus:
		switch {
		case c == '0':
			return lexZero, false
		case digit:
			return lexInt, false
		}
	case lexZero:
		switch {
		case c == '.':
			return lexDot, false
		case !digit:
			return 0, true
		}
	case lexInt:
		switch {
		case digit:
			return lexInt, false
		case c == '.':
			return lexDot, false
		case exp:
			return lexExp, false
		default:
			return 0, true
		}
	case lexDot:
		if digit {
			return lexFraction, false
		}
	case lexFraction:
		switch {
		case digit:
			return lexFraction, false
		case exp:
			return lexExp, false
		default:
			return 0, true
		}
	case lexExp:
		switch {
		case c == '+' || c == '-':
			return lexExpSign, false
		case digit:
			return lexExpDigits, false
		}
	case lexExpSign:
		if digit {
			return lexExpDigits, false
		}
	case lexExpDigits:
		if digit {
			return lexExpDigits, false
		}
		return 0, true
	}
	return lexStart, false
}

// stray reports the current token as broken by the byte c, drops what has come
// of the value, and looks for something new.
func (r *Reader) stray(c byte) error {
	reported := r.failed
	var text []byte
	if !reported {
		if r.lex == lexString || r.lex == lexEscape {
			text = append(text, r.quote)
		}
		data := r.tape[r.start : r.start+min(r.packed, (maxSyntaxError+3)/4*3)]
		rest := r.tape[r.start+r.packed:]
		text = appendPacked(text, data, rest[:min(len(rest), maxSyntaxError)])
		text = append(text, c)
		if i := bytes.IndexByte(text, 0); i >= 0 {
			text = text[:i]
		}
	}
	r.begin()
	r.lex = lexRecover
	if reported {
		return nil
	}
	return syntaxError("stray '" + string(text) + "'")
}

// fail reports an error of the current value. The rest of it is dropped; where
// it is complete already, the next one begins.
func (r *Reader) fail(desc string) error {
	r.failed = true
	r.tape, r.start, r.packed, r.raw = r.tape[:0], 0, 0, true
	clear(r.frames)
	r.frames = r.frames[:0]
	r.settle()
	return qga.Failure(desc)
}

// settle ends a failed value at the token with which its brackets balance.
func (r *Reader) settle() {
	if r.lex == lexStart &&
		(r.braces < 0 || r.brackets < 0 || r.braces == 0 && r.brackets == 0) {
		r.begin()
	}
}

// overlong reports whether the value, a string in the middle of it included,
// has exceeded the limit.
func (r *Reader) overlong() bool {
	return !r.failed && r.lex != lexStart && r.size+r.length() > r.limit
}

// length is the length of the current token's text, as far as it is on the
// tape.
func (r *Reader) length() int { return len(r.tape) - r.start + r.packed/3 }

func (r *Reader) keep(b []byte) error {
	if r.failed {
		return nil
	}
	if r.size+r.length()+len(b) > r.limit || !r.reserve(len(b)) {
		return r.fail("JSON token size limit exceeded")
	}
	r.tape = append(r.tape, b...)
	return nil
}

func (r *Reader) keepByte(c byte) error {
	if r.failed {
		return nil
	}
	if r.size+r.length() >= r.limit || !r.reserve(1) {
		return r.fail("JSON token size limit exceeded")
	}
	r.tape = append(r.tape, c)
	return nil
}

// reserve makes room on the tape for n more bytes.
func (r *Reader) reserve(n int) bool {
	if cap(r.tape)-len(r.tape) >= n {
		return true
	}
	// Every read in a large string comes here: enlarge in generous steps.
	var ok bool
	r.tape, ok = buffer.Grow(r.tape, max(n, 512))
	return ok
}

// head appends the head of a string, a list or an object. Its length, or end,
// is not known yet. The room for it has been reserved.
func (r *Reader) head(k Kind) {
	r.tape = append(r.tape, byte(k), 0, 0, 0, 0)
}

// scalar appends a number. The room for it has been reserved.
func (r *Reader) scalar(k Kind, word uint64) {
	r.tape = append(r.tape, byte(k))
	r.tape = binary.LittleEndian.AppendUint64(r.tape, word)
}

// token takes one whole token of the given number of bytes: a structural
// character, 's' for a string, '0' for a number, 'k' for a keyword.
func (r *Reader) token(t byte, bytes int) (complete bool, err error) {
	r.tokens++
	r.size += bytes
	switch {
	case r.failed:
		r.settle()
		return false, nil
	case r.size > r.limit || !r.reserve(scalarSize):
		return false, r.fail("JSON token size limit exceeded")
	case r.tokens > maxTokens:
		return false, r.fail("JSON token count limit exceeded")
	case r.braces+r.brackets > maxDepth:
		return false, r.fail("JSON nesting depth limit exceeded")
	}

	if text := r.parse(t); text != "" {
		return false, r.fail(syntaxError(text).Desc)
	}
	return len(r.frames) == 0 && r.want == wantComma, nil
}

// parse takes the token into the value, or says what is wrong with it.
func (r *Reader) parse(t byte) string {
	switch r.want {
	case wantKey, wantKeyOrEnd:
		if t == '}' && r.want == wantKeyOrEnd {
			return r.close()
		}
		if t != 's' {
			return "expecting key"
		}
		f := &r.frames[len(r.frames)-1]
		f.key = r.start - headSize
		r.want = wantColon
		return r.finishString()
	case wantColon:
		if t != ':' {
			return "expecting ':'"
		}
		r.want = wantValue
		return ""
	case wantComma:
		object := r.frames[len(r.frames)-1].object
		switch {
		case t == ',' && object:
			r.want = wantKey
			return ""
		case t == ',':
			r.want = wantValue
			return ""
		case t == '}' && object, t == ']' && !object:
			return r.close()
		case object:
			return "expected ',' or '}'"
		default:
			return "expected ',' or ']'"
		}
	}

	switch t {
	case '{', '[':
		r.frames = append(r.frames, frame{object: t == '{', at: len(r.tape)})
		r.head(Kind(t))
		r.want = wantValueOrEnd
		if t == '{' {
			r.want = wantKeyOrEnd
		}
		return ""
	case ']':
		if r.want == wantValueOrEnd {
			return r.close()
		}
		return "expecting value"
	case 's':
		if text := r.finishString(); text != "" {
			return text
		}
	case '0':
		r.finishNumber()
	case 'k':
		word := string(r.tape[r.start:])
		r.tape = r.tape[:r.start]
		switch word {
		case "true":
			r.tape = append(r.tape, byte(True))
		case "false":
			r.tape = append(r.tape, byte(False))
		case "null":
			r.tape = append(r.tape, byte(Null))
		default:
			return "invalid keyword '" + word + "'"
		}
	default:
		return "expecting value"
	}
	return r.valueDone()
}

// close ends the innermost object or list.
func (r *Reader) close() string {
	f := r.frames[len(r.frames)-1]
	binary.LittleEndian.PutUint32(r.tape[f.at+1:], uint32(len(r.tape)))
	r.frames[len(r.frames)-1] = frame{}
	r.frames = r.frames[:len(r.frames)-1]
	return r.valueDone()
}

// valueDone goes on after a value: with the enclosing object or list.
func (r *Reader) valueDone() string {
	r.want = wantComma
	if len(r.frames) == 0 {
		return ""
	}
	f := &r.frames[len(r.frames)-1]
	if f.object && r.duplicate(f) {
		return "duplicate key"
	}
	f.members++
	return ""
}

// duplicate reports whether the current member's name has come before.
func (r *Reader) duplicate(f *frame) bool {
	const few = 16
	name := Value{r.tape, f.key}.name()
	if f.names == nil && f.members < few {
		for at := f.at + headSize; at < f.key; {
			n := Value{r.tape, at}
			if bytes.Equal(n.name(), name) {
				return true
			}
			at = Value{r.tape, n.end()}.end()
		}
		return false
	}
	if f.names == nil {
		f.names = make(map[uint64]int, 4*few)
		for at := f.at + headSize; at < f.key; {
			n := Value{r.tape, at}
			f.names[maphash.Bytes(hashSeed, n.name())] = at
			at = Value{r.tape, n.end()}.end()
		}
	}
	// Two names with the same 64-bit hash would count as the same: with a
	// seed of this process that is nobody's to choose.
	h := maphash.Bytes(hashSeed, name)
	if _, ok := f.names[h]; ok {
		return true
	}
	f.names[h] = f.key
	return false
}

// finishString ends a string token: its text, if it is not plain, is decoded
// in place.
func (r *Reader) finishString() string {
	rest := r.tape[r.start+r.packed:]
	if r.special {
		n, text := unescape(rest, r.quote)
		if text != "" {
			return text
		}
		rest = rest[:n]
		r.tape = r.tape[:r.start+r.packed+n]
	}
	length := uint32(len(r.tape) - r.start)
	if r.packed > 0 {
		r.tape = binary.LittleEndian.AppendUint32(r.tape, uint32(len(rest)))
		length = (length + tailSize) | packedFlag
		r.packed = 0
	}
	binary.LittleEndian.PutUint32(r.tape[r.start-headSize+1:], length)
	return ""
}

// finishNumber replaces the text of a number by its value: an int64 where that
// holds it, else a uint64, else a double.
func (r *Reader) finishNumber() {
	text := r.tape[r.start:]
	r.tape = r.tape[:r.start]
	if !bytes.ContainsAny(text, ".eE") {
		s := string(text[:min(len(text), len("-18446744073709551615")+1)])
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			r.scalar(Int, uint64(i))
			return
		}
		if u, err := strconv.ParseUint(s, 10, 64); err == nil {
			r.scalar(Uint, u)
			return
		}
	}
	f, _ := strconv.ParseFloat(string(text), 64)
	// A number beyond a double would have to be echoed as "inf", which is not
	// JSON: the largest one stands for it.
	f = max(min(f, math.MaxFloat64), -math.MaxFloat64)
	r.scalar(Float, math.Float64bits(f))
}
