//go:build linux

package sidebyside

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"testing"
	"time"
)

var soups = flag.Int("soups", 400, "how many random inputs to send to both agents")

// TestSoup sends random sequences of JSON's tokens, whole, broken and in odd
// places, to the C agent and to ours: both must answer the same lines. It is
// how the rules of the dialect were found, and how they stay.
func TestSoup(t *testing.T) {
	c := startC(t)
	ours := serve(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range *soups {
		in := soup(rng)
		want := withoutPosition(exchange(t, c, in))
		got := exchange(t, ours, in)
		if !bytes.Equal(got, want) {
			t.Errorf("input %q\n got %q\nwant %q", in, got, want)
		}
	}
}

var tokens = []string{
	`{`, `}`, `[`, `]`, `:`, `,`, `{`, `}`, `[`, `]`, `:`, `,`, `"a"`, `"b"`, `'c'`, `1`, `-5`, `2.5`, `1e3`,
	`true`, `false`, `null`, `nul`, `xyz`, ` `, "\n", "\t", `"\x"`, `"\ud800"`, `"\u00e9"`, "\"\xc3\xa9\"", "\"\xe9\"",
	`{"execute":"guest-ping"}`, `"execute"`, `"guest-ping"`, `"id"`, `"arguments"`, `{}`, `[]`, `{"a":1,"a":2}`,
	"\xff", "\xfe", "\x00", "\x01", `@`, `A`, `-`, `0`, `01`, `1.`, `.5`, `0e1`, `0.0e1`, `1e`, `1e+`, `+1`, `"`, `'`, `\`,
	"\"a\nb\"", "\"a\xff\"", `"\u12"`, `"\ud83d\ude00"`, `"\uFFFF"`, "\xc3\xa9", "18446744073709551615",
	"18446744073709551616", "-9223372036854775809", `{"execute":"guest-sync","arguments":{"id":7}}`,
	`"\"`, `"\\"`, `"\/\b\f\n\r\t"`, "\"\xc0\x80\"", "\"\\u0000\"", "\x7f", "\"\x7f\"", "/", "%", "#",
}

func soup(rng *rand.Rand) []byte {
	var b []byte
	for range 1 + rng.IntN(12) {
		b = append(b, tokens[rng.IntN(len(tokens))]...)
		if rng.IntN(20) == 0 {
			b = append(b, byte(rng.IntN(256)))
		}
	}
	return append(b, '\n')
}

// position is the place in all input since its start that the C agent puts
// before a syntax error. Ours leaves it out.
var position = regexp.MustCompile(`"desc": "\d+:\d+: `)

func withoutPosition(b []byte) []byte {
	return position.ReplaceAll(b, []byte(`"desc": "`))
}

// mark is a request whose reply shows that everything before it was answered.
func mark(n int) (request, reply []byte) {
	return fmt.Appendf(nil, "\xff\n{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%d}}", n),
		fmt.Appendf(nil, "\xff{\"return\": %d}\n", n)
}

// exchange sends in and returns what came back, up to what the mark causes.
func exchange(t *testing.T, path string, in []byte) []byte {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	request, reply := mark(rand.IntN(1 << 30))
	go conn.Write(append(bytes.Clone(in), request...))
	var out []byte
	buf := make([]byte, 64<<10)
	for !bytes.HasSuffix(out, reply) {
		n, err := conn.Read(buf)
		out = append(out, buf[:n]...)
		if err != nil {
			t.Fatalf("after %q: %q: %v", in, out, err)
		}
	}
	return out[:len(out)-len(reply)]
}
