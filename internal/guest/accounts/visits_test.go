package accounts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestEnter has homes visited one at a time each, and dead ones bounded.
func TestEnter(t *testing.T) {
	a := New(Config{})
	enter := func(home string) func() {
		t.Helper()
		leave, err := a.enter(t.Context(), home)
		if err != nil {
			t.Fatal(err)
		}
		return leave
	}
	leave := enter("/home/dead")
	enter("/root")() // which is not, and can be visited

	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := a.enter(short, "/home/dead"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second visitor: got %v", err)
	}
	entered := make(chan func())
	go func() { entered <- enter("/home/dead") }()
	leave()
	(<-entered)()

	var leaves []func()
	for i := range maxVisits {
		leaves = append(leaves, enter(fmt.Sprint("/home/", i)))
	}
	if _, err := a.enter(t.Context(), "/root"); !errors.Is(err, errVisits) {
		t.Errorf("one too many: got %v, want %v", err, errVisits)
	}
	for _, leave := range leaves {
		leave()
	}
	enter("/root")()
	if len(a.homes) != 0 || len(a.visits) != 0 {
		t.Errorf("%d homes and %d visits are left", len(a.homes), len(a.visits))
	}
}

func TestParseGroup(t *testing.T) {
	const text = `root:x:0:
adm:x:4:syslog,alice
alice:x:1000:
sudo:x:27:alice
broken:x:one:alice
short:x:5
huge:x:4294967296:alice
# comment:x:6:alice
+:::
al:x:7:alic,lice
`
	if got, want := parseGroup(text, "alice"), []uint32{4, 27, 6}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := parseGroup(text, "nobody"); got != nil {
		t.Errorf("got %v, want none", got)
	}
}
