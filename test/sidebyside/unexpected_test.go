//go:build linux

package sidebyside

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// same sends the input to both agents, which have to answer the same.
func same(t *testing.T, c, ours, in string) {
	t.Helper()
	want := withoutPosition(exchange(t, c, []byte(in)))
	if got := exchange(t, ours, []byte(in)); !bytes.Equal(got, want) {
		t.Errorf("%.300q:\n got %.300q\nwant %.300q", in, got, want)
	}
}

// TestUnexpected has both agents choose, of many members that there should not be,
// the one to complain of.
func TestUnexpected(t *testing.T) {
	c, ours := startC(t), serve(t)
	rng := rand.New(rand.NewPCG(2, 0))
	const letters = "abcdefghijklmnopqrstuvwxyz-_0123456789é"
	for i := range 300 {
		members := []string{`"id":1`}
		for range 1 + rng.IntN(1+i) {
			var name strings.Builder
			for range rng.IntN(12) {
				name.WriteByte(letters[rng.IntN(len(letters)-2)])
			}
			// Numbered, as no name may come twice.
			members = append(members, fmt.Sprintf(`"%sé%d":0`, name.String(), len(members)))
		}
		rng.Shuffle(len(members), func(a, b int) { members[a], members[b] = members[b], members[a] })
		same(t, c, ours, `{"execute":"guest-sync","arguments":{`+strings.Join(members, ",")+"}}\n")
	}
}

// TestLongTokens sends tokens around the length at which an error's text is cut.
func TestLongTokens(t *testing.T) {
	c, ours := startC(t), serve(t)
	for n := 1005; n < 1030; n++ {
		same(t, c, ours, `"`+strings.Repeat("a", n)+"\n")
		same(t, c, ours, strings.Repeat("a", n)+" ")
		same(t, c, ours, `"`+strings.Repeat("é", n/2)+"\n")
	}
	for _, n := range []int{1400, 4094, 4095, 4096, 4097, 100000} {
		same(t, c, ours, `"`+strings.Repeat("QUJD", n/4)+"\n")
		same(t, c, ours, `{"x":"`+strings.Repeat("QUJD", n/4)+"\x01}")
	}
}

// TestEndOfProc looks for the end of files that have none.
func TestEndOfProc(t *testing.T) {
	c, ours := startC(t), start(t, vm.Build(t, "./cmd/qemu-ga").Path)
	handle := 1000
	for _, path := range []string{"/proc/version", "/proc/self/maps", "/sys/kernel/mm/transparent_hugepage/enabled", "/dev/null"} {
		for _, offset := range []int{0, 5, -1} {
			same(t, c, ours, fmt.Sprintf(`{"execute":"guest-file-open","arguments":{"path":%q}}`, path)+
				fmt.Sprintf(`{"execute":"guest-file-seek","arguments":{"handle":%d,"offset":%d,"whence":"end"}}`, handle, offset)+
				fmt.Sprintf(`{"execute":"guest-file-close","arguments":{"handle":%d}}`, handle))
			handle++
		}
	}
}
