package qga

// ExecStatusArgs are the arguments of guest-exec-status.
type ExecStatusArgs struct {
	PID int64 `json:"pid"`
}

// ExecStatusResult is the state of a process. While it runs, only Exited is
// there.
type ExecStatusResult struct {
	// Exited turns true when the process is gone and nobody holds its captured
	// output any more, so a child left behind in the background delays it.
	Exited bool `json:"exited"`
	// ExitCode is absent when the process did not end by itself.
	ExitCode *int64 `json:"exitcode,omitempty"`
	// Signal is the number of the signal that killed the process, on Windows
	// the code of its unhandled exception; absent when it ended by itself.
	Signal *int64 `json:"signal,omitempty"`
	// OutData and ErrData are the captured streams, each up to 16 MiB. Absent
	// means not captured or empty. With CaptureMerged all is in OutData.
	OutData []byte `json:"out-data,omitempty"`
	ErrData []byte `json:"err-data,omitempty"`
	// OutTruncated and ErrTruncated say whether the stream was longer than
	// what is returned of it. Each comes with its data only.
	OutTruncated *bool `json:"out-truncated,omitempty"`
	ErrTruncated *bool `json:"err-truncated,omitempty"`
}

// ExecStatus asks for the state of a process that Exec started. An agent may
// forget the process with the first reply that says it has exited.
var ExecStatus = Command[ExecStatusArgs, ExecStatusResult]{Info{
	Name: "guest-exec-status", Since: "2.5", Systems: AllSystems,
}}

// A CaptureOutput says which output of a process is kept for ExecStatus; the
// rest is thrown away. On the wire it is a string or, the only form before 8.0,
// a boolean: false is CaptureNone and true is CaptureSeparated. The empty
// string is none of its values.
type CaptureOutput string

// The values of CaptureOutput.
const (
	CaptureNone      CaptureOutput = "none"
	CaptureStdout    CaptureOutput = "stdout"
	CaptureStderr    CaptureOutput = "stderr"
	CaptureSeparated CaptureOutput = "separated" // both, each by itself
	CaptureMerged    CaptureOutput = "merged"    // both as one stream; not on Windows
)

// EnumValues implements Enum.
func (CaptureOutput) EnumValues() []string {
	return enumValues(CaptureNone, CaptureStdout, CaptureStderr, CaptureSeparated, CaptureMerged)
}

// AlternateName implements Alternate.
func (CaptureOutput) AlternateName() string { return "GuestExecCaptureOutput" }

// WireValue implements Alternate: a bool where that can say it, so that agents
// before 8.0 understand, else the string.
func (c CaptureOutput) WireValue() any {
	switch c {
	case CaptureNone:
		return false
	case CaptureSeparated:
		return true
	}
	return string(c)
}

// FromBool sets c to CaptureSeparated or CaptureNone.
func (c *CaptureOutput) FromBool(capture bool) {
	if capture {
		*c = CaptureSeparated
	} else {
		*c = CaptureNone
	}
}

// FromString sets c to s. It reports whether s is one of the values, and leaves
// c alone if not.
func (c *CaptureOutput) FromString(s string) bool {
	for _, v := range c.EnumValues() {
		if v == s {
			*c = CaptureOutput(s)
			return true
		}
	}
	return false
}

// ExecArgs are the arguments of guest-exec.
type ExecArgs struct {
	// Path is the program. Without a slash it is looked up in PATH: the one in
	// Env if there is one, else the agent's.
	Path string `json:"path"`
	// Arg are the program's arguments after its name, which is Path.
	Arg []string `json:"arg,omitempty"`
	// Env is the whole environment as NAME=value. Nil is absent and stands for
	// the agent's own environment; empty but not nil is an empty environment.
	Env []string `json:"env,omitempty"`
	// InputData is what the program reads from its standard input. Nil is
	// absent and stands for the null device; empty but not nil is a pipe that
	// ends at once.
	InputData []byte `json:"input-data,omitempty"`
	// CaptureOutput is CaptureNone when absent.
	CaptureOutput *CaptureOutput `json:"capture-output,omitempty"`
}

// ExecResult names the process that guest-exec started.
type ExecResult struct {
	// PID is the process's number in the guest.
	PID int64 `json:"pid"`
}

// Exec starts a program and does not wait for it; ExecStatus tells how it went.
var Exec = Command[ExecArgs, ExecResult]{Info{
	Name: "guest-exec", Since: "2.5", Systems: AllSystems,
}}
