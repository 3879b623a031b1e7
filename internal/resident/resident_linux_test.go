package resident

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// field returns a number of kB in a file about this process.
func field(t *testing.T, file, name string) (n int) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/" + file)
	if err != nil {
		t.Fatal(err)
	}
	_, value, ok := bytes.Cut(data, []byte("\n"+name+":"))
	if !ok {
		t.Fatalf("no %s in %s", name, file)
	}
	if _, err := fmt.Sscan(string(value), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTrimAndLock(t *testing.T) {
	before := field(t, "status", "RssFile")
	Trim()
	trimmed := field(t, "status", "RssFile")
	if trimmed >= before {
		t.Errorf("%d kB of files in memory, %d before they were trimmed", trimmed, before)
	}
	Lock()
	if n := field(t, "status", "VmLck"); n == 0 {
		t.Skip("memory cannot be locked here")
	}
	program := 0
	for _, m := range fileMappings() {
		program += int(m.length >> 10)
	}
	if n := field(t, "status", "RssFile"); n < program {
		t.Errorf("%d kB of files in memory, want all %d", n, program)
	}
	Unlock()
	if n := field(t, "status", "VmLck"); n != 0 {
		t.Errorf("still locked: %d kB", n)
	}
	if n := field(t, "status", "RssFile"); n >= before {
		t.Errorf("%d kB of files in memory, %d before", n, before)
	}
}
