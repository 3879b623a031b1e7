package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bellhop-vm/bellhop/qga"
)

// parse returns the one value in text.
func parse(t testing.TB, text string) Value {
	t.Helper()
	v, err := NewReader(strings.NewReader(text + "\n")).Read()
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func write(f func(*Writer)) string {
	var b bytes.Buffer
	w := NewWriter(&b)
	f(w)
	w.Flush()
	return b.String()
}

func TestEnvelope(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{"execute":"guest-ping","arguments":{},"id":[1]}`, ""},
		{`5`, "QMP input must be a JSON object"},
		{`[]`, "QMP input must be a JSON object"},
		{`{}`, "QMP input lacks member 'execute'"},
		{`{"id":1}`, "QMP input lacks member 'execute'"},
		{`{"execute":5}`, "QMP input member 'execute' must be a string"},
		{`{"execute":null}`, "QMP input member 'execute' must be a string"},
		{`{"execute":"x","arguments":[]}`, "QMP input member 'arguments' must be an object"},
		{`{"execute":"x","arguments":null}`, "QMP input member 'arguments' must be an object"},
		{`{"execute":"x","":1}`, "QMP input member '' is unexpected"},
		{`{"exec-oob":"x"}`, "QMP input member 'exec-oob' is unexpected"},
		// Of several mistakes the one whose member comes first in the
		// dictionary: execute is in bucket 299, arguments in 447.
		{`{"arguments":1,"execute":1}`, "QMP input member 'execute' must be a string"},
	} {
		_, err := Envelope(parse(t, tt.in))
		if got := errText(err); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.in, got, tt.want)
		}
	}
	req, err := Envelope(parse(t, `{"id":"x","execute":7}`))
	if err == nil || !req.HasID || string(req.ID.Bytes()) != "x" {
		t.Errorf("the id is to be echoed with an error: %v %v", req, err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestDecodeArgs(t *testing.T) {
	for _, tt := range []struct {
		c        qga.Descriptor
		in, want string
	}{
		{qga.Sync, `{"id":-9223372036854775808}`, ""},
		{qga.Sync, `{}`, "Parameter 'id' is missing"},
		{qga.Sync, `{"foo":2}`, "Parameter 'id' is missing"},
		{qga.Sync, `{"id":1,"foo":2}`, "Parameter 'foo' is unexpected"},
		{qga.Sync, `{"id":"5"}`, "Invalid parameter type for 'id', expected: integer"},
		{qga.Sync, `{"id":5.0}`, "Invalid parameter type for 'id', expected: integer"},
		{qga.Sync, `{"id":9223372036854775808}`, "Invalid parameter type for 'id', expected: integer"},
		{qga.Sync, `{"id":null}`, "Invalid parameter type for 'id', expected: integer"},
		{qga.Ping, `{}`, ""},
		{qga.Ping, `{"a":1}`, "Parameter 'a' is unexpected"},
		{qga.FileSeek, `{"handle":1,"offset":0,"whence":"set"}`, ""},
		{qga.FileSeek, `{"handle":1,"offset":0,"whence":7}`, ""},
		{qga.FileSeek, `{"handle":1,"offset":0,"whence":"foo"}`, "Parameter 'whence' does not accept value 'foo'"},
		{qga.FileSeek, `{"handle":1,"offset":0,"whence":true}`, "Invalid parameter type for 'whence', expected: GuestFileWhence"},
		{qga.FileSeek, `{"handle":1,"offset":0,"whence":1.5}`, "Invalid parameter type for 'whence', expected: integer"},
		{qga.Exec, `{"path":"x","capture-output":"merged"}`, ""},
		{qga.Exec, `{"path":"x","capture-output":true}`, ""},
		{qga.Exec, `{"path":"x","capture-output":1}`, "Invalid parameter type for 'capture-output', expected: GuestExecCaptureOutput"},
		{qga.Exec, `{"path":"x","arg":"y"}`, "Invalid parameter type for 'arg', expected: array"},
		{qga.Exec, `{"path":"x","arg":["y",1]}`, "Invalid parameter type for 'arg[1]', expected: string"},
		{qga.Exec, `{"path":"x","input-data":"@"}`, "Base64 data contains invalid characters"},
		{qga.Exec, `{"path":"x","input-data":"@","capture-output":1}`, "Invalid parameter type for 'capture-output', expected: GuestExecCaptureOutput"},
		{qga.SetVCPUs, `{"vcpus":[{"logical-id":0}]}`, "Parameter 'vcpus[0].online' is missing"},
		{qga.SetVCPUs, `{"vcpus":[{"logical-id":0,"online":true,"foo":1}]}`, "Parameter 'vcpus[0].foo' is unexpected"},
		{qga.SetVCPUs, `{"vcpus":[5]}`, "Invalid parameter type for 'vcpus[0]', expected: object"},
		{qga.SetVCPUs, `{"vcpus":[{"logical-id":0,"online":1}]}`, "Invalid parameter type for 'vcpus[0].online', expected: boolean"},
		{qga.SetMemoryBlocks, `{"mem-blks":[{"phys-index":18446744073709551615,"online":true}]}`, ""},
		{qga.SetMemoryBlocks, `{"mem-blks":[{"phys-index":-1,"online":true}]}`, "Parameter 'mem-blks[0].phys-index' expects uint64"},
		{qga.SetMemoryBlocks, `{"mem-blks":[{"phys-index":18446744073709551616,"online":true}]}`, "Parameter 'mem-blks[0].phys-index' expects uint64"},
	} {
		dst := reflect.New(tt.c.ArgsType()).Elem()
		err := ArgsDecoderOf(tt.c.ArgsType()).Decode(parse(t, tt.in), dst)
		if got := errText(err); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.c.Describe().Name, tt.in, got, tt.want)
		}
	}
}

func TestDecodeValues(t *testing.T) {
	var a qga.ExecArgs
	err := ArgsDecoderOf(reflect.TypeFor[qga.ExecArgs]()).Decode(
		parse(t, `{"path":"/bin/sh","arg":["-c","é"],"env":[],"input-data":"aGVsbG8","capture-output":"stderr"}`), reflect.ValueOf(&a).Elem())
	if err != nil {
		t.Fatal(err)
	}
	stderr := qga.CaptureStderr
	want := qga.ExecArgs{Path: "/bin/sh", Arg: []string{"-c", "é"}, Env: []string{}, InputData: []byte("hel"), CaptureOutput: &stderr}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("got %+v, want %+v", a, want)
	}
}

// TestRoundTrip encodes a value of every result type and decodes it again.
func TestRoundTrip(t *testing.T) {
	for _, c := range qga.Commands() {
		for _, typ := range []reflect.Type{c.ResultType(), c.ArgsType()} {
			v := reflect.New(typ).Elem()
			fill(v, 3)
			text := write(func(w *Writer) { EncoderOf(typ).Encode(w, v) })
			if !json.Valid([]byte(text)) {
				t.Fatalf("%s: not JSON: %s", c.Describe().Name, text)
			}
			got := reflect.New(typ).Elem()
			if err := ResultDecoderOf(typ).Decode(parse(t, text), got); err != nil {
				t.Errorf("%s: %v", c.Describe().Name, err)
			}
			if !reflect.DeepEqual(got.Interface(), v.Interface()) {
				t.Errorf("%s: %s became %+v", c.Describe().Name, text, got)
			}
		}
	}
}

// fill sets everything in v to something other than zero.
func fill(v reflect.Value, n int64) {
	if e, ok := v.Addr().Interface().(qga.Enum); ok && v.Kind() == reflect.String {
		values := e.EnumValues()
		v.SetString(values[int(n)%len(values)])
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64, reflect.Int32:
		v.SetInt(n % 3)
	case reflect.Uint64, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(n))
	case reflect.Float64:
		v.SetFloat(float64(n) / 7)
	case reflect.String:
		v.SetString("text\n\"é😀\\")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte("some bytes"))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n+int64(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n+int64(i))
		}
	}
}

// TestMemberOrder has the orders that the C agent was seen to use.
func TestMemberOrder(t *testing.T) {
	for _, order := range []string{
		"return id", "id error", "class desc", "enabled name success-response", "count buf-b64 eof", "eof position",
		"exitcode err-data out-data err-truncated out-truncated exited", "name ip-addresses statistics hardware-address",
		"name total-bytes total-bytes-privileged mountpoint disk used-bytes type", "bus slot domain function",
		"serial bus-type bus unit pci-controller dev target", "ip-address-type ip-address prefix",
	} {
		want := strings.Fields(order)
		reversed := make([]string, len(want))
		for i, k := range want {
			reversed[len(want)-1-i] = k
		}
		var got []string
		for _, i := range dictionaryOrder(reversed) {
			got = append(got, reversed[i])
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestWriterString(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain", `"plain"`},
		{"\"\\/\b\f\n\r\t", `"\"\\/\b\f\n\r\t"`},
		{"\x1f\x7f", `"\u001F\u007F"`},
		{"é€😀", `"\u00E9\u20AC\uD83D\uDE00"`},
		{"a\xc0\x80b", `"a\u0000b"`},
		{"\xc3(\xe2\x82(\x80\x80\xff", `"\uFFFD(\uFFFD(\uFFFD\uFFFD\uFFFD"`},
		{"\xf8\x88\x80\x80\x80|\xc3\xc3\xa9", `"\uFFFD|\uFFFD\u00E9"`},
		{"\uffff\ufdd0\U0001ffff", `"\uFFFD\uFFFD\uFFFD"`},
		{strings.Repeat("long and plain ", 100) + "\x01", `"` + strings.Repeat("long and plain ", 100) + `\u0001"`},
		{strings.Repeat("long and plain ", 100), `"` + strings.Repeat("long and plain ", 100) + `"`},
	} {
		if got := write(func(w *Writer) { w.String(tt.in) }); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestWriterReplies(t *testing.T) {
	id := parse(t, `{"b":1,"a":[null]}`)
	failure := &qga.Error{Class: qga.CommandNotFound, Desc: "no"}
	got := write(func(w *Writer) {
		w.BeginReturn(false)
		w.Int(5)
		w.EndReturn(Value{}, false)
		w.BeginReturn(true)
		w.Raw("{}")
		w.EndReturn(id, true)
		w.BeginReturn(true)
		w.Raw(`"half a`)
		w.Error(id, true, failure)
		w.Error(Value{}, false, failure)
	})
	want := `{"return": 5}` + "\n\xff" + `{"return": {}, "id": {"a": [null], "b": 1}}` + "\n" +
		`{"id": {"a": [null], "b": 1}, "error": {"class": "CommandNotFound", "desc": "no"}}` + "\n" +
		`{"error": {"class": "CommandNotFound", "desc": "no"}}` + "\n"
	if got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

// TestWriterLarge shows that data larger than the buffer is passed on while it
// is encoded, and that an error can no longer take its place.
func TestWriterLarge(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	var out bytes.Buffer
	w := NewWriter(&out)
	w.BeginReturn(false)
	w.Raw(`"`)
	w.Base64(data)
	if w.Error(Value{}, false, qga.Failure("too late")) {
		t.Error("an error took the place of what is on its way")
	}
	w.Raw(`"`)
	w.EndReturn(Value{}, false)
	if c := cap(w.buf); c > 4*flushAt {
		t.Errorf("the buffer grew to %d", c)
	}
	w.Flush()
	if want := `{"return": "` + base64.StdEncoding.EncodeToString(data) + "\"}\n"; out.String() != want {
		t.Error("the reply is not what it should be")
	}
	w.Trim()
	if w.Large() {
		t.Error("the memory has not been given back")
	}
}

func TestDecodeBase64(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		// What the C agent makes of these.
		{"", ""},
		{"Y", ""},
		{"YQ", ""},
		{"YQ=", ""},
		{"YQ==", "a"},
		{"YWI", ""},
		{"YWI=", "ab"},
		{"=", ""},
		{"====", "\x00"},
		{"YQ==YQ==", "aa"},
		{"Y=Q=", "\x60\x04"},
		{"=YQ=", "\x01\x84"},
		{"YW=I", "a\x08"},
		{"Y\nQ\n=\n=", "a"},
		{"YQ==\n", "a"},
		{"YWJj=", "abc"},
		{"YWJj====", "abc\x00"},
		{"YWJjYW==YWJj", "abcaabc"},
		{"aGVsbG8", "hel"},
	} {
		got, err := decodeBase64([]byte(tt.in))
		if err != nil || string(got) != tt.want {
			t.Errorf("%q: got %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"@", "YQ ==", "YQ\r\n==", "YWJj-", "_", "YWJ\x00"} {
		if got, err := decodeBase64([]byte(in)); err == nil {
			t.Errorf("%q: got %q, want an error", in, got)
		}
	}
}

func FuzzDecodeArgs(f *testing.F) {
	for _, s := range []string{
		`{"handle":1000,"buf-b64":"YQ==","count":1}`, `{"handle":1,"offset":-1,"whence":"cur"}`,
		`{"path":"x","arg":["a"],"env":[],"input-data":"","capture-output":"merged"}`,
		`{"vcpus":[{"logical-id":1,"online":true}]}`, `{"mem-blks":[{"phys-index":-1,"online":1}]}`,
		`{"username":"u","keys":["a",5],"reset":null}`,
	} {
		f.Add([]byte(s))
	}
	commands := qga.Commands()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range commands {
			v, err := NewReader(bytes.NewReader(append(bytes.Clone(data), '\n'))).Read()
			if err != nil {
				return
			}
			args := reflect.New(c.ArgsType()).Elem()
			if err := ArgsDecoderOf(c.ArgsType()).Decode(v, args); err != nil {
				e, ok := err.(*qga.Error)
				if !ok || e.Class != qga.GenericError || e.Desc == "" {
					t.Errorf("%s: %#v", c.Describe().Name, err)
				}
				continue
			}
			// What was accepted can be sent again and means the same.
			text := write(func(w *Writer) { EncoderOf(c.ArgsType()).Encode(w, args) })
			again := reflect.New(c.ArgsType()).Elem()
			if !utf8.ValidString(text) {
				t.Fatalf("not UTF-8: %q", text)
			}
			if err := ArgsDecoderOf(c.ArgsType()).Decode(parse(t, text), again); err != nil {
				t.Errorf("%s: %s: %v", c.Describe().Name, text, err)
			}
		}
	})
}

// The text is made in two parts, the second of them by a codec that changes its
// way with the length.
func TestAppendBase64(t *testing.T) {
	data := make([]byte, 300)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for n := range data {
		want := "x" + base64.StdEncoding.EncodeToString(data[:n])
		if got := string(appendBase64([]byte("x"), data[:n])); got != want {
			t.Errorf("%d bytes: got %q, want %q", n, got, want)
		}
	}
}
