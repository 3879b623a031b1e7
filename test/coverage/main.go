// Command coverage writes docs/coverage.md: which commands of the protocol the
// agent has on which system, and which tests run each of them. Everything in
// the table is found out, from the descriptors, the agent and the tests' source;
// where the agent departs from the C agent is told in deviations.md.
//
//	go run ./test/coverage > docs/coverage.md
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bellhop-vm/bellhop/qga"
)

//go:embed deviations.md
var deviations string

func main() {
	if err := write(os.Stdout, "."); err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}

// write writes the page for the source tree at root.
func write(w io.Writer, root string) error {
	offered, err := offered(root)
	if err != nil {
		return err
	}
	idents, err := descriptors(filepath.Join(root, "qga"))
	if err != nil {
		return err
	}
	guest, err := testsIn(filepath.Join(root, "test/guest"), idents)
	if err != nil {
		return err
	}
	beside, err := testsIn(filepath.Join(root, "test/sidebyside"), idents)
	if err != nil {
		return err
	}
	if err := addCaptures(beside, filepath.Join(root, "test/sidebyside/testdata/cases.jsonl")); err != nil {
		return err
	}

	fmt.Fprint(w, header)
	n := 0
	for _, c := range qga.Commands() {
		i := c.Describe()
		if offered[i.Name] {
			n++
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", i.Name, i.Since,
			state(i, qga.Linux, offered[i.Name]), state(i, qga.Windows, false), state(i, qga.FreeBSD, false),
			list(beside[i.Name]), list(guest[i.Name]))
	}
	fmt.Fprintf(w, "\nOn Linux %d of %d commands.\n\n%s", n, len(qga.Commands()), deviations)
	return nil
}

const header = `<!-- Made by "make docs" from the descriptors, the agent and the tests. -->

# Coverage

What of the protocol is there, and what shows that it works. "yes" is offered by
the agent; "not yet" is in the C agent on that system and will be; "-" is not in
the C agent either. A command that is not offered is answered as the C agent
answers one that it lacks: class CommandNotFound, "The command ... has not been
found".

The last two columns name the tests that call the command: beside the C agent,
with the replies compared, and through the virtio-serial port of a real guest.

| command | since | Linux | Windows | FreeBSD | beside the C agent | in a real guest |
|---|---|---|---|---|---|---|
`

func state(i qga.Info, s qga.System, offered bool) string {
	switch {
	case offered:
		return "yes"
	case i.Systems&s != 0:
		return "not yet"
	default:
		return "-"
	}
}

func list(tests []string) string { return strings.Join(tests, ", ") }

// offered asks the agent for the commands that it has.
func offered(root string) (map[string]bool, error) {
	cmd := exec.Command("go", "run", "./cmd/qemu-ga", "-b", "help")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask the agent for its commands: %w", err)
	}
	commands := make(map[string]bool)
	for name := range strings.Lines(string(out)) {
		commands[strings.TrimSpace(name)] = true
	}
	return commands, nil
}

// testsIn returns, by command, the tests in dir whose source mentions it: its
// descriptor, of which idents has the identifiers, or its name in a string.
func testsIn(dir string, idents map[string]string) (map[string][]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	calls := make(map[string][]string)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			// What is "test..." is run by one that is "Test...".
			if !ok || f.Recv != nil || !strings.HasPrefix(strings.ToLower(f.Name.Name), "test") {
				continue
			}
			mentioned := make(map[string]bool)
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "qga" && idents[n.Sel.Name] != "" {
						mentioned[idents[n.Sel.Name]] = true
					}
				case *ast.BasicLit:
					if n.Kind == token.STRING {
						for _, name := range named(n.Value) {
							mentioned[name] = true
						}
					}
				}
				return true
			})
			for name := range maps.Keys(mentioned) {
				calls[name] = append(calls[name], f.Name.Name)
			}
		}
	}
	for _, tests := range calls {
		slices.Sort(tests)
	}
	return calls, nil
}

// named returns the commands that a text names as a whole word.
func named(text string) []string {
	var names []string
	words := strings.FieldsFunc(text, func(r rune) bool {
		return r != '-' && (r < 'a' || r > 'z')
	})
	for _, c := range qga.Commands() {
		if name := c.Describe().Name; slices.Contains(words, name) {
			names = append(names, name)
		}
	}
	return names
}

// descriptors returns the names of the commands by the identifiers of their
// descriptors, which are declared in dir.
func descriptors(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	idents := make(map[string]string)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			ast.Inspect(v, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					for _, name := range named(l.Value) {
						idents[v.Names[0].Name] = name
					}
				}
				return true
			})
			return false
		})
	}
	return idents, nil
}

// addCaptures adds the commands of the captures to the tests that replay them.
func addCaptures(tests map[string][]string, path string) error {
	replayedBy := map[string]string{"wire": "TestWire", "rpc-lists": "TestLists", "commands": "TestFilesAndExec"}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c struct{ Group, Request string }
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return err
		}
		for _, name := range named(c.Request) {
			test, ok := replayedBy[c.Group]
			if ok && !slices.Contains(tests[name], test) {
				tests[name] = append(tests[name], test)
			}
		}
	}
	for _, list := range tests {
		slices.Sort(list)
	}
	return lines.Err()
}
