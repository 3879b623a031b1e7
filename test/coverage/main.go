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
	guest, err := testsInGuests(filepath.Join(root, "test"), idents)
	if err != nil {
		return err
	}
	beside := make(map[string][]string)
	if err := addTests(beside, filepath.Join(root, "test/sidebyside"), idents); err != nil {
		return err
	}
	if err := addCaptures(beside, filepath.Join(root, "test/sidebyside/testdata/cases.jsonl")); err != nil {
		return err
	}

	fmt.Fprint(w, header)
	var absent []string
	for _, c := range qga.Commands() {
		i := c.Describe()
		if !offered[i.Name] {
			absent = append(absent, i.Name)
		}
		if len(guest[i.Name]) == 0 {
			return fmt.Errorf("no test calls %s in a guest", i.Name)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", i.Name, i.Since,
			state(i, qga.Linux, offered[i.Name]), state(i, qga.Windows, false), state(i, qga.FreeBSD, false),
			list(beside[i.Name]), list(guest[i.Name]))
	}
	all := len(qga.Commands())
	fmt.Fprintf(w, "\nOn Linux %d of %[1]d commands are answered, each in a real guest. %d are offered; not found\nthere, as in the C agent: %s.\n\n%s",
		all, all-len(absent), strings.Join(absent, ", "), deviations)
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
with the replies compared, and in a real guest.

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

// list names some of the tests; of a few commands all of them make use.
func list(tests []string) string {
	const most = 4
	if more := len(tests) - most; more > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(tests[:most], ", "), more)
	}
	return strings.Join(tests, ", ")
}

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

// testsInGuests returns, by command, the tests below dir that call it in a guest:
// those of packages that boot one.
func testsInGuests(dir string, idents map[string]string) (map[string][]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*/*_test.go"))
	if err != nil {
		return nil, err
	}
	var packages []string
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if pkg := filepath.Dir(path); boots(file) && !slices.Contains(packages, pkg) {
			packages = append(packages, pkg)
		}
	}
	calls := make(map[string][]string)
	for _, pkg := range packages {
		if err := addTests(calls, pkg, idents); err != nil {
			return nil, err
		}
	}
	return calls, nil
}

// boots tells whether a file has a guest booted by package vm.
func boots(file *ast.File) (found bool) {
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "Start" || s.Sel.Name == "Boot") {
			x, ok := s.X.(*ast.Ident)
			found = found || ok && x.Name == "vm"
		}
		return !found
	})
	return found
}

// A node is a function, a method or a variable of a package of tests.
type node struct {
	commands map[string]bool   // whose descriptors or names it mentions
	uses     map[string]bool   // what it mentions besides
	subtests map[string]string // from the names of its tests within to their functions
}

// addTests adds, by command, the tests in dir whose source mentions it, or that
// of a function or variable which they use. Of the tests that a test has within
// it, each counts by itself.
func addTests(calls map[string][]string, dir string, idents map[string]string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return err
	}
	nodes := make(map[string]*node)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				nodes[d.Name.Name] = newNode(d, idents)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if v, ok := s.(*ast.ValueSpec); ok {
						for _, name := range v.Names {
							nodes[name.Name] = newNode(v, idents)
						}
					}
				}
			}
		}
	}

	add := func(test, from string) {
		for command := range reached(nodes, from) {
			if !slices.Contains(calls[command], test) {
				calls[command] = append(calls[command], test)
			}
		}
	}
	for name, n := range nodes {
		if !strings.HasPrefix(name, "Test") {
			continue
		}
		for subtest, function := range n.subtests {
			if nodes[function] != nil {
				delete(n.uses, function)
				add(name+"/"+strings.ReplaceAll(subtest, " ", "_"), function)
			}
		}
		add(name, name)
	}
	for _, tests := range calls {
		slices.Sort(tests)
	}
	return nil
}

func newNode(decl ast.Node, idents map[string]string) *node {
	n := &node{make(map[string]bool), make(map[string]bool), make(map[string]string)}
	ast.Inspect(decl, func(e ast.Node) bool {
		switch e := e.(type) {
		case *ast.SelectorExpr:
			if x, ok := e.X.(*ast.Ident); ok && x.Name == "qga" && idents[e.Sel.Name] != "" {
				n.commands[idents[e.Sel.Name]] = true
			}
		case *ast.Ident:
			n.uses[e.Name] = true
		case *ast.BasicLit:
			if e.Kind == token.STRING {
				for _, name := range named(e.Value) {
					n.commands[name] = true
				}
			}
		case *ast.CompositeLit: // {"name", function}
			if len(e.Elts) != 2 {
				break
			}
			name, ok := e.Elts[0].(*ast.BasicLit)
			function, isIdent := e.Elts[1].(*ast.Ident)
			if ok && isIdent && name.Kind == token.STRING {
				n.subtests[strings.Trim(name.Value, `"`)] = function.Name
			}
		}
		return true
	})
	return n
}

// reached returns the commands that a node mentions, itself or through others.
func reached(nodes map[string]*node, name string) map[string]bool {
	commands := make(map[string]bool)
	seen := make(map[string]bool)
	var visit func(string)
	visit = func(name string) {
		n := nodes[name]
		if n == nil || seen[name] {
			return
		}
		seen[name] = true
		maps.Copy(commands, n.commands)
		for used := range n.uses {
			visit(used)
		}
	}
	visit(name)
	return commands
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
	replayedBy := map[string]string{
		"wire": "TestWire", "rpc-lists": "TestLists", "commands": "TestFilesAndExec", "freeze": "TestFreeze",
	}
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
			if test, ok := replayedBy[c.Group]; ok && !slices.Contains(tests[name], test) {
				tests[name] = append(tests[name], test)
			}
		}
	}
	for _, list := range tests {
		slices.Sort(list)
	}
	return lines.Err()
}
