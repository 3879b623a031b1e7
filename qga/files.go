package qga

// A Handle names an open file of the guest. Handles are shared by all clients,
// outlive their connections and are never given out twice.
type Handle int64

// FileOpenArgs are the arguments of guest-file-open.
type FileOpenArgs struct {
	// Path should be absolute: a relative one depends on the agent's working
	// directory.
	Path string `json:"path"`
	// Mode is as in fopen(3): r, w or a, each optionally with + and b in any
	// order. Absent means r.
	Mode *string `json:"mode,omitempty"`
}

// FileOpen opens a file of the guest.
var FileOpen = Command[FileOpenArgs, Handle]{Info{
	Name: "guest-file-open", Since: "0.15.0", Systems: AllSystems,
}}

// HandleArgs are the arguments of the commands that need only a file.
type HandleArgs struct {
	Handle Handle `json:"handle"`
}

// FileClose closes a file. A failure means that data may be lost.
var FileClose = Command[HandleArgs, Empty]{Info{
	Name: "guest-file-close", Since: "0.15.0", Systems: AllSystems,
}}

// FileReadMax is the largest count that guest-file-read accepts, in bytes.
const FileReadMax = 48 << 20

// FileReadArgs are the arguments of guest-file-read.
type FileReadArgs struct {
	Handle Handle `json:"handle"`
	// Count is how many bytes to read at most, up to FileReadMax. Absent means
	// 4096.
	Count *int64 `json:"count,omitempty"`
}

// FileReadResult is what guest-file-read read.
type FileReadResult struct {
	// Count is the length of Data.
	Count int64  `json:"count"`
	Data  []byte `json:"buf-b64"`
	// EOF is true when the end of the file cut the read short. Reading exactly
	// up to the end leaves it false, and a later read may find that the file
	// has grown. Windows agents set it only when nothing was left to read.
	EOF bool `json:"eof"`
}

// FileRead reads from a file at its current position.
var FileRead = Command[FileReadArgs, FileReadResult]{Info{
	Name: "guest-file-read", Since: "0.15.0", Systems: AllSystems,
}}

// FileWriteArgs are the arguments of guest-file-write.
type FileWriteArgs struct {
	Handle Handle `json:"handle"`
	Data   []byte `json:"buf-b64"`
	// Count is how many bytes of Data to write. Absent means all; more than
	// there are is an error.
	Count *int64 `json:"count,omitempty"`
}

// FileWriteResult is the outcome of guest-file-write.
type FileWriteResult struct {
	// Count is how many bytes were written.
	Count int64 `json:"count"`
	// EOF is of no use: it is always false.
	EOF bool `json:"eof"`
}

// FileWrite writes to a file at its current position, or at its end in mode a.
// An agent may hold the data back until FileFlush, FileSeek or FileClose.
var FileWrite = Command[FileWriteArgs, FileWriteResult]{Info{
	Name: "guest-file-write", Since: "0.15.0", Systems: AllSystems,
}}

// A Whence is what an offset counts from. It is a number with a name: agents
// since 2.6 accept either, older ones the number only. Any number decodes; it
// is for the command to refuse one that means nothing.
type Whence int64

// The values of Whence. They are the protocol's own, whatever the SEEK_
// constants of host and guest are.
const (
	SeekSet Whence = 0 // the start of the file
	SeekCur Whence = 1 // the current position
	SeekEnd Whence = 2 // the end of the file
)

// EnumValues implements Enum. A name's index is its number.
func (Whence) EnumValues() []string { return []string{"set", "cur", "end"} }

// AlternateName implements Alternate.
func (Whence) AlternateName() string { return "GuestFileWhence" }

// WireValue implements Alternate: the number, as an int64.
func (w Whence) WireValue() any { return int64(w) }

// FromInt sets w to the number n.
func (w *Whence) FromInt(n int64) { *w = Whence(n) }

// FromString sets w to the number called s. It reports whether there is one,
// and leaves w alone if not.
func (w *Whence) FromString(s string) bool {
	for n, name := range w.EnumValues() {
		if name == s {
			*w = Whence(n)
			return true
		}
	}
	return false
}

// FileSeekArgs are the arguments of guest-file-seek.
type FileSeekArgs struct {
	Handle Handle `json:"handle"`
	// Offset is in bytes and may be negative.
	Offset int64  `json:"offset"`
	Whence Whence `json:"whence"`
}

// FileSeekResult is the outcome of guest-file-seek.
type FileSeekResult struct {
	// Position is the new position in bytes from the start of the file.
	Position int64 `json:"position"`
	// EOF is of no use: moving clears it.
	EOF bool `json:"eof"`
}

// FileSeek moves the current position of a file and returns it.
var FileSeek = Command[FileSeekArgs, FileSeekResult]{Info{
	Name: "guest-file-seek", Since: "0.15.0", Systems: AllSystems,
}}

// FileFlush hands data that the agent holds back to the kernel. It does not
// wait until they are on disk.
var FileFlush = Command[HandleArgs, Empty]{Info{
	Name: "guest-file-flush", Since: "0.15.0", Systems: AllSystems,
}}
