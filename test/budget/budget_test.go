// Package budget keeps the agent small: what it links, how large it is and how
// much memory it takes. It runs in every guest of a machine, so each megabyte
// counts many times. Whoever breaks a budget for a good reason changes it here,
// and says why.
package budget

import (
	"bytes"
	"context"
	"debug/elf"
	"flag"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/logging"
)

const module = "github.com/bellhop-vm/bellhop"

// banned are packages that the agent must not link, each with what it costs
// and what to use instead. A name that ends in a slash bans all below it.
var banned = map[string]string{
	"crypto/":        "156 kB for a single hash, since all of it comes with the FIPS module",
	"encoding/json":  "430 kB, and it cannot do the protocol's dialect: use qga/wire",
	"encoding/gob":   "reflects over methods, which keeps the linker from dropping unused ones",
	"flag":           "147 kB, and it knows no bundled short options: see internal/config",
	"html/template":  "see text/template",
	"log/slog":       "links encoding/json: use internal/logging",
	"log/syslog":     "links net and log: use internal/logging",
	"math/big":       "nothing here is that large; it comes with crypto",
	"net":            "half a megabyte for sockets that golang.org/x/sys/unix opens as well",
	"net/http":       "3.2 MB",
	"os/exec":        "links context-bound pipes and goroutines that guest-exec must not have: use internal/threads.ForkExec",
	"os/user":        "asks NSS through cgo, or else understands files only: read them",
	"plugin":         "needs dynamic linking",
	"regexp":         "258 kB",
	"runtime/cgo":    "the binary must be static: one file for each distribution and libc",
	"runtime/pprof":  "221 kB",
	"runtime/trace":  "nobody looks at it in a guest",
	"testing":        "is for tests",
	"text/tabwriter": "is for people, who are at the host",
	"text/template":  "1 MB, and it calls methods by name, which keeps the linker from dropping unused ones",
}

// modules are the modules that the agent may link, and why. Each is a promise
// to its users that somebody looks at it.
var modules = map[string]string{
	"golang.org/x/sys":         "system calls that package syscall lacks",
	"github.com/segmentio/asm": "base64 at memory speed, and a fallback in Go",
}

func goCommand(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &stderr)
	}
	return string(out)
}

// TestStarts finds what starts programs other than by internal/threads, which sees to
// how they are scheduled.
func TestStarts(t *testing.T) {
	found := 0
	for _, dir := range []string{"../../internal", "../../cmd/qemu-ga"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			ours := filepath.Base(filepath.Dir(path)) == "threads"
			for _, call := range []string{"syscall.ForkExec(", "syscall.StartProcess(", "os.StartProcess("} {
				if n := bytes.Count(text, []byte(call)); n > 0 && ours {
					found += n
				} else if n > 0 {
					t.Errorf("%s: %s: use threads.ForkExec", path, call)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if found == 0 {
		t.Error("internal/threads starts no programs")
	}
}

func TestDependencies(t *testing.T) {
	for _, system := range []string{"linux", "windows", "freebsd"} {
		if system != "linux" && !builds(system) {
			continue
		}
		found := make(map[string]bool)
		out := goCommand(t, []string{"GOOS=" + system}, "list", "-deps", "-f", "{{.ImportPath}} {{with .Module}}{{.Path}}{{end}}", module+"/cmd/qemu-ga")
		for line := range strings.Lines(out) {
			path, mod, _ := strings.Cut(strings.TrimSpace(line), " ")
			for name, reason := range banned {
				if path == name || strings.HasSuffix(name, "/") && strings.HasPrefix(path, name) {
					t.Errorf("%s: the agent links %s: %s", system, path, reason)
				}
			}
			if mod == "" || mod == module {
				continue
			}
			found[mod] = true
			if modules[mod] == "" {
				t.Errorf("%s: the agent links %s of %s, which nobody has looked at yet", system, path, mod)
			}
		}
		for mod := range modules {
			if system == "linux" && !found[mod] {
				t.Errorf("%s is not linked any more", mod)
			}
		}
	}
}

// builds reports whether the agent has a version for a system.
func builds(system string) bool {
	cmd := exec.Command("go", "list", "-deps", module+"/cmd/qemu-ga")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system)
	return cmd.Run() == nil
}

// build builds the agent and returns its path.
func build(t *testing.T, ldflags string, env ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "qemu-ga")
	goCommand(t, env, "build", "-trimpath", "-buildvcs=false", "-ldflags="+ldflags, "-o", file, module+"/cmd/qemu-ga")
	return file
}

// sizeLimit is for the stripped binary. Its pages are most of what the agent
// has resident, so this is memory rather than disk.
const sizeLimit = 4_500_000

func TestBinary(t *testing.T) {
	file := build(t, "-s -w", "GOOS=linux", "GOARCH=amd64")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("%d bytes", info.Size()); info.Size() > sizeLimit {
		t.Errorf("the agent has %d bytes, want no more than %d", info.Size(), sizeLimit)
	}

	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the agent has a %v segment: it is not static", p.Type)
		}
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the agent needs the libraries %q, %v", libraries, err)
	}
}

// TestDeadCode checks that the linker may drop methods that nobody calls. It
// cannot if a method might be called by a name that is known only at run time.
func TestDeadCode(t *testing.T) {
	f, err := elf.Open(build(t, "", "GOOS=linux", "GOARCH=amd64"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return s.Name == name })
	}
	if !has("main.main") {
		t.Fatal("the symbols of the agent cannot be read")
	}
	for _, name := range []string{"reflect.Value.Method", "reflect.Value.MethodByName", "reflect.(*rtype).Method", "reflect.(*rtype).MethodByName"} {
		if has(name) {
			t.Errorf("the agent calls %s", name)
		}
	}
}

var allArchitectures = flag.Bool("all-architectures", false, "build for all of them, which takes minutes at first")

// TestArchitectures builds the agent for processors of other widths and byte
// orders than the usual one.
func TestArchitectures(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the standard library")
	}
	list := []string{"386", "arm64", "s390x"}
	if *allArchitectures {
		list = append(list, "arm", "riscv64", "ppc64le", "loong64")
	}
	for _, arch := range list {
		t.Run(arch, func(t *testing.T) {
			info, err := os.Stat(build(t, "-s -w", "GOOS=linux", "GOARCH="+arch))
			if err != nil {
				t.Fatal(err)
			}
			if t.Logf("%d bytes", info.Size()); info.Size() > sizeLimit {
				t.Errorf("the agent has %d bytes, want no more than %d", info.Size(), sizeLimit)
			}
		})
	}
}

// patience bounds the waits for what ends by itself.
const patience = time.Minute

// A hall is a channel whose clients come through pipes.
type hall chan net.Conn

func (h hall) Accept(ctx context.Context) (io.ReadWriteCloser, error) {
	select {
	case conn := <-h:
		return conn, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestHeap checks what 20,000 pings leave behind: neither memory nor, once the
// clients have left, goroutines.
func TestHeap(t *testing.T) {
	const (
		clients   = 20
		pings     = 20_000
		heapLimit = 256 << 10 // more than before
	)
	a := agent.New(logging.New(logging.Discard, logging.Discard, false), nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	channel := make(hall)
	go func() {
		defer close(ended)
		_ = a.Listen(ctx, channel) // its error is that of ctx
	}()

	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what had a finalizer is gone only now
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	visit := func(n int) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		channel <- theirs
		reply := make([]byte, len("{\"return\": {}}\n"))
		for range n {
			if _, err := io.WriteString(ours, `{"execute":"guest-ping"}`); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(ours, reply); err != nil || string(reply) != "{\"return\": {}}\n" {
				t.Fatalf("%q, %v", reply, err)
			}
		}
	}
	settled := func(want int) int {
		n := runtime.NumGoroutine()
		for end := time.Now().Add(patience); n > want && time.Now().Before(end); n = runtime.NumGoroutine() {
			time.Sleep(10 * time.Millisecond)
		}
		return n
	}

	atRest := runtime.NumGoroutine()
	visit(10)
	goroutines := settled(atRest)
	before := heap()
	for range clients {
		visit(pings / clients)
	}
	if n := settled(goroutines); n > goroutines {
		t.Errorf("%d goroutines before and %d after", goroutines, n)
	}
	after := heap()
	for end := time.Now().Add(patience); after > before+heapLimit && time.Now().Before(end); after = heap() {
		time.Sleep(10 * time.Millisecond) // something may be on its way out
	}
	if t.Logf("heap: %d bytes before and %d after", before, after); after > before+heapLimit {
		t.Errorf("heap: %d bytes before and %d after", before, after)
	}

	// One client more costs no more than its buffers.
	const clientLimit = 64 << 10
	before = heap()
	var conns []net.Conn
	for range clients {
		ours, theirs := net.Pipe()
		channel <- theirs
		conns = append(conns, ours)
		if _, err := io.WriteString(ours, `{"execute":"guest-ping"}`); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(ours, make([]byte, len("{\"return\": {}}\n"))); err != nil {
			t.Fatal(err)
		}
	}
	after = heap()
	if t.Logf("%d bytes a client", (int64(after)-int64(before))/clients); after > before+clients*clientLimit {
		t.Errorf("%d clients take %d bytes, want no more than %d each", clients, after-before, clientLimit)
	}
	for _, conn := range conns {
		conn.Close()
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the agent does not end")
	}
}
