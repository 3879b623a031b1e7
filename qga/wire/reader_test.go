package wire

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// transcript reads src to its end and returns what came of it: values in the
// Writer's format, errors as their text, a line each.
func transcript(src io.Reader) string {
	r := NewReader(src)
	defer r.Close()
	var out bytes.Buffer
	w := NewWriter(&out)
	for {
		v, err := r.Read()
		switch {
		case err == nil:
			w.Value(v)
			w.EndMessage()
			w.Flush()
		default:
			if _, ok := err.(*SyntaxError); !ok {
				return out.String()
			}
			fmt.Fprintln(&out, err)
		}
	}
}

func TestReader(t *testing.T) {
	const trunc = "" // nothing is reported of a value that never ends
	for _, tt := range []struct{ in, want string }{
		{`{"execute":"guest-ping"}`, `{"execute": "guest-ping"}` + "\n"},
		{`{'a':'say "hi" it\'s'}`, `{"a": "say \"hi\" it's"}` + "\n"},
		{`{}{}[]`, "{}\n{}\n[]\n"},
		{"1 2.5 -0 -0.0 1e5 ", "1\n2.5\n0\n-0\n100000\n"},
		{"18446744073709551615 18446744073709551616 -9223372036854775809 ", "18446744073709551615\n1.8446744073709552e+19\n-9.2233720368547758e+18\n"},
		{"1e400 -1e400 ", "1.7976931348623157e+308\n-1.7976931348623157e+308\n"},
		{"12", trunc},
		{"true false null tru ", "true\nfalse\nnull\nJSON parse error, invalid keyword 'tru'\n"},
		{`[1,[2,{"b":[],"a":{}}]]`, `[1, [2, {"a": {}, "b": []}]]` + "\n"},
		{"\xff{}", "JSON parse error, stray '\xff'\n{}\n"},
		{"\xff\n\xfe{}", "JSON parse error, stray '\xff'\nJSON parse error, stray '\xfe'\n{}\n"},
		{`{"a":` + "\xff{}", "JSON parse error, stray '\xff'\n{}\n"},
		{"{\"a\":\n{}", trunc},
		{"garbage! {}", "JSON parse error, invalid keyword 'garbage'\nJSON parse error, stray '!'\n{}\n"},
		{"@ @ @ {}", "JSON parse error, stray '@'\n{}\n"},
		{"@\n@\n", "JSON parse error, stray '@'\nJSON parse error, stray '@'\n"},
		{`{"a":1,]}{}`, "JSON parse error, expecting key\nJSON parse error, expecting value\n{}\n"},
		{`{"a" 1 @ "b"} {}`, "JSON parse error, expecting ':'\nJSON parse error, expecting value\n{}\n"},
		{`{"a":1 "b":[2,{}]} {}`, "JSON parse error, expected ',' or '}'\n{}\n"},
		{`[1 2] {}`, "JSON parse error, expected ',' or ']'\n{}\n"},
		{`{"a":1,"a":2}`, "JSON parse error, duplicate key\n"},
		{`"\u00e9\ud83d\ude00\u0000\/"`, `"\u00E9\uD83D\uDE00\u0000/"` + "\n"},
		{`"\x41" "\ud800" "\u12" "\uffff" "\ud83dx"`, "JSON parse error, invalid escape sequence in string\n" +
			`JSON parse error, \ud800 is not a valid Unicode character` + "\n" +
			`JSON parse error, \u12" is not a valid Unicode character` + "\n" +
			`JSON parse error, \uffff is not a valid Unicode character` + "\n" +
			`JSON parse error, \ud83d is not a valid Unicode character` + "\n"},
		{"\"a\xc0\x80b\"\"\xed\xa0\x80\"", `"a\u0000b"` + "\nJSON parse error, invalid UTF-8 sequence in string\n"},
		{"\"a\x7fb\"", `"a\u007Fb"` + "\n"},
		{"\"a\tb\" 1 ", "JSON parse error, stray '\"a\t'\n"},
		{"01 ", "JSON parse error, stray '01'\n"},
		{"0e1 ", "0\nJSON parse error, invalid keyword 'e'\n1\n"},
	} {
		if got := transcript(strings.NewReader(tt.in)); got != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.in, got, tt.want)
		}
		if got := transcript(iotest.OneByteReader(strings.NewReader(tt.in))); got != tt.want {
			t.Errorf("%q a byte at a time:\n got %q\nwant %q", tt.in, got, tt.want)
		}
	}
}

func TestReaderLimits(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	long := func(n int) string { return `{"x":"` + strings.Repeat("y", n-len(`{"x":""}`)) + `"}` }
	numbers := func(n int) string { return "[" + strings.Repeat("1,", n-1) + "1]" }
	for _, tt := range []struct {
		name, in string
		limit    string
	}{
		{"depth", deep(maxDepth), ""},
		{"too deep", deep(maxDepth + 1), "JSON nesting depth limit exceeded"},
		{"long", long(maxTokenBytes), ""},
		{"too long", long(maxTokenBytes + 1), "JSON token size limit exceeded"},
		{"far too long", long(maxTokenBytes + 32<<20), "JSON token size limit exceeded"},
		{"tokens", numbers(maxTokens/2 - 1), ""},
		{"too many tokens", numbers(maxTokens / 2), "JSON token count limit exceeded"},
		{"blanks do not count", "[" + strings.Repeat(" ", maxTokenBytes) + "]", ""},
		{"too long, then an error", `["` + strings.Repeat("y", maxTokenBytes) + `" 5 {: ]}`, "JSON token size limit exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(strings.NewReader(tt.in + "\n\xff{}"))
			defer r.Close()
			_, err := r.Read()
			if tt.limit == "" && err != nil || tt.limit != "" && (err == nil || err.Error() != tt.limit) {
				t.Errorf("got %v, want %q", err, tt.limit)
			}
			if c := cap(r.tape); c > 2*maxTokenBytes {
				t.Errorf("tape of %d bytes", c)
			}
			// What follows is read as if nothing had been.
			if _, err := r.Read(); err == nil || !strings.Contains(err.Error(), "stray") {
				t.Errorf("after it: %v, want the sentinel's error", err)
			}
			if v, err := r.Read(); err != nil || v.Kind() != Object {
				t.Errorf("after it: %v", err)
			}
		})
	}
}

func TestReaderManyKeys(t *testing.T) {
	const n = 200_000
	var b strings.Builder
	b.WriteString("{")
	for i := range n {
		fmt.Fprintf(&b, "%q:%d,", fmt.Sprint("key", i), i)
	}
	r := NewReader(strings.NewReader(b.String() + `"key777":0}` + b.String() + `"other":0}`))
	if _, err := r.Read(); err == nil || !strings.HasSuffix(err.Error(), "duplicate key") {
		t.Errorf("got %v, want a duplicate key", err)
	}
	v, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := v.Member("key777"); !ok || m.Int() != 777 {
		t.Errorf("key777 is %v", m)
	}
}

func TestReaderGivesMemoryBack(t *testing.T) {
	text := strings.Repeat("x", 8<<20)
	r := NewReader(io.MultiReader(strings.NewReader(`{"a":"`+text+`"}`), strings.NewReader(`{"b":`)))
	v, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := v.Member("a"); string(m.Bytes()) != text {
		t.Fatal("the text is not what was sent")
	}
	if !r.Large() {
		t.Error("8 MiB do not count as large")
	}
	r.Trim()
	if r.Large() {
		t.Errorf("after Trim: tape %d, input %d", cap(r.tape), len(r.in))
	}
	if _, err := r.Read(); err != io.EOF {
		t.Fatal(err)
	}
	// A value on its way must survive.
	r.Trim()
	r.src = strings.NewReader(`1}`)
	if v, err := r.Read(); err != nil || v.Kind() != Object {
		t.Errorf("the value that was on its way: %v", err)
	}
}

// pieces yields its data in pieces of random length.
type pieces struct {
	data []byte
	rng  *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := min(1+p.rng.IntN(1+p.rng.IntN(len(p.data))), len(b), len(p.data))
	copy(b, p.data[:n])
	p.data = p.data[n:]
	return n, nil
}

// outcome reads src to its end and returns what came of it, and of strings also
// what their base64 decodes to.
func outcome(src io.Reader, packFrom int) string {
	r := NewReader(src)
	defer r.Close()
	r.packFrom = packFrom
	var out strings.Builder
	for {
		v, err := r.Read()
		if err != nil {
			if _, ok := err.(*SyntaxError); !ok {
				return out.String()
			}
			fmt.Fprintln(&out, err)
			continue
		}
		fmt.Fprintf(&out, "%s\n", AppendValue(nil, v))
		if v.Kind() != Object {
			continue
		}
		for _, m := range v.Members {
			if m.Kind() == String {
				data, err := m.data()
				fmt.Fprintf(&out, "%x %v\n", data, err)
				break // the rest of the tape is as it was, but it is not said to be
			}
		}
	}
}

// FuzzPack has long strings read with and without packing.
func FuzzPack(f *testing.F) {
	f.Add(4000, []byte("YQ==\"}"), uint64(1))
	f.Add(base64Piece+3, []byte("YQ==YWJj\",\"id\":\"QUJD\"}{}"), uint64(2))
	f.Add(3*base64Piece, []byte("\\nYW\\u004aj\"}"), uint64(3))
	f.Add(100, []byte("\xc3\xa9@\",'QUJD':1}"), uint64(4))
	f.Add(5000, []byte("\x01{}"), uint64(5))
	f.Fuzz(func(t *testing.T, lead int, tail []byte, seed uint64) {
		text := `{"a":"` + strings.Repeat("QUJD/+09", base64Piece)[:max(0, lead)%(6*base64Piece)] + string(tail)
		want := outcome(strings.NewReader(text), len(text)+1)
		for _, from := range []int{0, 5, packFrom} {
			got := outcome(&pieces{[]byte(text), rand.New(rand.NewPCG(seed, 0))}, from)
			if got != want {
				t.Errorf("%d and %q, packed from %d: got %.200q, want %.200q", lead, tail, from, got, want)
			}
		}
	})
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{
		`{"execute":"guest-file-write","arguments":{"handle":1000,"buf-b64":"aGVsbG8="},"id":{"a":[1,2.5e3,"\u00e9"]}}`,
		"\xff{'a':'\\'\\\"', \"b\":nul}\n[[1,2],{}]", `{"a":1,"a":2}"`, strings.Repeat("[", 1030), "-0.5e-3 \x00\xff\"\xc3\xa9\xc0\x80\"",
		`{"a":"` + strings.Repeat("long enough to be scanned at once ", 10) + "\x01\"}",
	} {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		whole := transcript(bytes.NewReader(data))
		split := transcript(&pieces{bytes.Clone(data), rand.New(rand.NewPCG(seed, 0))})
		if whole != split {
			t.Errorf("whole:\n%s\nsplit:\n%s", whole, split)
		}
		// Whatever came before, a client can make itself heard.
		tail := "\n\xff\n{\"execute\":\"guest-ping\"}"
		if got := transcript(strings.NewReader(string(data) + tail)); !strings.HasSuffix(got, "{\"execute\": \"guest-ping\"}\n") {
			t.Errorf("a request after the input is lost: %q", got)
		}
	})
}

func BenchmarkReaderSmall(b *testing.B) {
	data := bytes.Repeat([]byte(`{"execute":"guest-file-read","arguments":{"handle":1000,"count":4096}}`+"\n"), 50)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	src := bytes.NewReader(data)
	r := NewReader(src)
	for b.Loop() {
		src.Reset(data)
		for {
			if _, err := r.Read(); err != nil {
				break
			}
		}
	}
}

func BenchmarkReaderLarge(b *testing.B) {
	data := []byte(`{"execute":"guest-file-write","arguments":{"handle":1000,"buf-b64":"` + strings.Repeat("QUJD", 12<<20) + `"}}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	src := bytes.NewReader(data)
	r := NewReader(src)
	defer r.Close()
	for b.Loop() {
		src.Reset(data)
		if _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
