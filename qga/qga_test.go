package qga

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// commands.txt is what the reference agent prints for "--block-rpcs=help" on
// Linux, with guest-get-devices, which only Windows has, put where it is
// registered there.
func TestCommandsOrder(t *testing.T) {
	text, err := os.ReadFile("testdata/commands.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(string(text))
	var got []string
	for _, d := range Commands() {
		got = append(got, d.Describe().Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("commands:\n got %q\nwant %q", got, want)
	}
	slices.Sort(got)
	if unique := slices.Compact(slices.Clone(got)); len(unique) != len(got) {
		t.Errorf("a name occurs twice in %q", got)
	}
}

// TestCommandsComplete finds the descriptors in the source: a command declared
// but not listed would silently be missing from agent and client.
func TestCommandsComplete(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if name, ok := descriptorName(n); ok {
				declared = append(declared, name)
			}
			return true
		})
	}
	var listed []string
	for _, d := range Commands() {
		listed = append(listed, d.Describe().Name)
	}
	slices.Sort(declared)
	slices.Sort(listed)
	if !slices.Equal(declared, listed) {
		t.Errorf("declared %q\nlisted   %q", declared, listed)
	}
}

// descriptorName returns the Name in a literal Command[A, R]{Info{Name: ...}}.
func descriptorName(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.CompositeLit)
	if !ok {
		return "", false
	}
	generic, ok := lit.Type.(*ast.IndexListExpr)
	if !ok || fmt.Sprint(generic.X) != "Command" || len(lit.Elts) != 1 {
		return "", false
	}
	info, ok := lit.Elts[0].(*ast.CompositeLit)
	if !ok {
		return "", false
	}
	for _, elt := range info.Elts {
		kv := elt.(*ast.KeyValueExpr)
		if fmt.Sprint(kv.Key) == "Name" {
			name, err := strconv.Unquote(kv.Value.(*ast.BasicLit).Value)
			return name, err == nil
		}
	}
	return "", false
}

// structs calls f for every struct type that t consists of.
func structs(t reflect.Type, f func(reflect.Type)) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		structs(t.Elem(), f)
	case reflect.Struct:
		f(t)
		for i := range t.NumField() {
			structs(t.Field(i).Type, f)
		}
	}
}

// TestConventions checks what the package comment promises of the types, which
// package wire relies on.
func TestConventions(t *testing.T) {
	seen := map[reflect.Type]bool{}
	check := func(s reflect.Type) {
		if seen[s] {
			return
		}
		seen[s] = true
		members := map[string]bool{}
		for i := range s.NumField() {
			f := s.Field(i)
			at := s.Name() + "." + f.Name
			name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || !f.IsExported() || f.Anonymous {
				t.Errorf("%s is not a named member", at)
			}
			if members[name] {
				t.Errorf("%s: %s has two members %q", at, s.Name(), name)
			}
			members[name] = true
			optional := option == "omitempty"
			if option != "" && !optional {
				t.Errorf("%s: option %q", at, option)
			}
			typ := f.Type
			switch typ.Kind() {
			case reflect.Pointer:
				if !optional {
					t.Errorf("%s is a pointer but not optional", at)
				}
				typ = typ.Elem()
			case reflect.Slice:
				typ = typ.Elem()
			default:
				if optional {
					t.Errorf("%s cannot be absent", at)
				}
			}
			switch typ.Kind() {
			case reflect.Bool, reflect.Int64, reflect.Uint64, reflect.Uint16, reflect.Uint8,
				reflect.Float64, reflect.String, reflect.Struct:
			default:
				t.Errorf("%s: kind %s is not of the protocol", at, typ.Kind())
			}
		}
	}
	for _, d := range Commands() {
		if d.ArgsType().Kind() != reflect.Struct {
			t.Errorf("%s: arguments are a %s", d.Describe().Name, d.ArgsType())
		}
		structs(d.ArgsType(), check)
		structs(d.ResultType(), check)
	}
}

// TestSince checks that releases are well formed, and that a since tag is on
// members only that some command once lacked.
func TestSince(t *testing.T) {
	oldest := map[reflect.Type][]int{}
	for _, d := range Commands() {
		since := release(t, d.Describe().Since)
		note := func(s reflect.Type) {
			if was, ok := oldest[s]; !ok || slices.Compare(since, was) < 0 {
				oldest[s] = since
			}
		}
		structs(d.ArgsType(), note)
		structs(d.ResultType(), note)
	}
	newest := release(t, ProtocolVersion)
	for s, command := range oldest {
		for i := range s.NumField() {
			f := s.Field(i)
			tag, ok := f.Tag.Lookup("since")
			if !ok {
				continue
			}
			member := release(t, tag)
			if slices.Compare(member, command) <= 0 || slices.Compare(member, newest) > 0 {
				t.Errorf("%s.%s: since %v, the command since %v, we are %v", s.Name(), f.Name, member, command, newest)
			}
		}
	}
}

func release(t *testing.T, s string) []int {
	t.Helper()
	var numbers []int
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			t.Fatalf("release %q: %v", s, err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// A capture is a call that the reference agent was seen to answer.
type capture struct {
	Command   string
	Arguments any
	Return    any
}

// captures reads replies.jsonl: calls and replies of the reference agent on
// Linux machines, at least one with each shape that was seen. Lists are cut to
// one element of each shape, and a few paths and names are changed.
func captures(t *testing.T) []capture {
	t.Helper()
	text, err := os.ReadFile("testdata/replies.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var all []capture
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var c capture
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.UseNumber()
		if err := decoder.Decode(&c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// TestReferenceReplies checks that the types fit what the reference agent
// accepts and sends, member for member.
func TestReferenceReplies(t *testing.T) {
	descriptors := map[string]Descriptor{}
	for _, d := range Commands() {
		descriptors[d.Describe().Name] = d
	}
	answered := map[string]bool{}
	for _, c := range captures(t) {
		d, ok := descriptors[c.Command]
		if !ok {
			t.Errorf("no descriptor of %s", c.Command)
			continue
		}
		answered[c.Command] = true
		if err := fits(d.ArgsType(), c.Arguments); err != nil {
			t.Errorf("%s: arguments%v", c.Command, err)
		}
		if err := fits(d.ResultType(), c.Return); err != nil {
			t.Errorf("%s: return%v", c.Command, err)
		}
	}
	for name, d := range descriptors {
		if info := d.Describe(); info.Systems&Linux != 0 && !info.Silent && !answered[name] {
			t.Errorf("no reply of %s was checked", name)
		}
	}
}

// fits returns an error, which begins with the place, unless a value of type t
// is JSON of the shape of v.
func fits(t reflect.Type, v any) error {
	mismatch := fmt.Errorf(": %v (%T) is not a %s", v, v, t)
	if t.Kind() == reflect.Pointer {
		return fits(t.Elem(), v)
	}
	if alternate, ok := reflect.New(t).Interface().(Alternate); ok {
		return fitsAlternate(alternate, v)
	}
	if enum, ok := reflect.Zero(t).Interface().(Enum); ok {
		if s, ok := v.(string); !ok || !slices.Contains(enum.EnumValues(), s) {
			return mismatch
		}
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return mismatch
		}
		return fitsStruct(t, v)
	case []any:
		if t.Kind() != reflect.Slice || t.Elem().Kind() == reflect.Uint8 {
			return mismatch
		}
		for i, elem := range v {
			if err := fits(t.Elem(), elem); err != nil {
				return fmt.Errorf("[%d]%w", i, err)
			}
		}
		return nil
	case string:
		if t == reflect.TypeFor[[]byte]() {
			if _, err := base64.StdEncoding.DecodeString(v); err != nil {
				return fmt.Errorf(": %w", err)
			}
			return nil
		}
		if t.Kind() != reflect.String {
			return mismatch
		}
		return nil
	case bool:
		if t.Kind() != reflect.Bool {
			return mismatch
		}
		return nil
	case json.Number:
		var err error
		switch t.Kind() {
		case reflect.Int64:
			_, err = v.Int64()
		case reflect.Uint64, reflect.Uint16:
			// As an argument, a negative number stands for itself modulo 2^64.
			if _, err = strconv.ParseUint(v.String(), 10, t.Bits()); strings.HasPrefix(v.String(), "-") && t.Bits() == 64 {
				_, err = v.Int64()
			}
		case reflect.Float64:
			_, err = v.Float64()
		default:
			return mismatch
		}
		if err != nil {
			return fmt.Errorf(": %w", err)
		}
		return nil
	}
	return mismatch
}

func fitsStruct(t reflect.Type, v map[string]any) error {
	known := map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = true
		member, ok := v[name]
		if !ok {
			if option == "" {
				return fmt.Errorf(".%s: absent, but required in %s", name, t)
			}
			continue
		}
		if err := fits(f.Type, member); err != nil {
			return fmt.Errorf(".%s%w", name, err)
		}
	}
	for name := range v {
		if !known[name] {
			return fmt.Errorf(".%s: unknown to %s", name, t)
		}
	}
	return nil
}

func fitsAlternate(a Alternate, v any) error {
	ok := false
	switch v := v.(type) {
	case bool:
		if a, takes := a.(interface{ FromBool(bool) }); takes {
			a.FromBool(v)
			ok = true
		}
	case string:
		if a, takes := a.(interface{ FromString(string) bool }); takes {
			ok = a.FromString(v)
		}
	case json.Number:
		if a, takes := a.(interface{ FromInt(int64) }); takes {
			n, err := v.Int64()
			a.FromInt(n)
			ok = err == nil
		}
	}
	if !ok {
		return fmt.Errorf(": %s does not take %v", a.AlternateName(), v)
	}
	return nil
}

// TestReferenceInfo checks the descriptors against the two guest-info replies
// among the captures: one of an idle agent, one of an agent with frozen file
// systems.
func TestReferenceInfo(t *testing.T) {
	type entry struct {
		Name            string
		Enabled         bool
		SuccessResponse bool `json:"success-response"`
	}
	frozen := 0
	for _, c := range captures(t) {
		if c.Command != GuestInfo.Name {
			continue
		}
		text, err := json.Marshal(c.Return)
		if err != nil {
			t.Fatal(err)
		}
		var reply struct {
			SupportedCommands []entry `json:"supported_commands"`
		}
		if err := json.Unmarshal(text, &reply); err != nil {
			t.Fatal(err)
		}
		entries := map[string]entry{}
		isFrozen := false
		for _, e := range reply.SupportedCommands {
			entries[e.Name] = e
			isFrozen = isFrozen || !e.Enabled
		}
		if isFrozen {
			frozen++
		}
		for _, d := range Commands() {
			info := d.Describe()
			e, ok := entries[info.Name]
			if onLinux := info.Systems&Linux != 0; ok != onLinux {
				t.Errorf("%s: on Linux %v, the reference says %v", info.Name, onLinux, ok)
			}
			if !ok {
				continue
			}
			if e.SuccessResponse == info.Silent {
				t.Errorf("%s: silent %v, the reference says %v", info.Name, info.Silent, !e.SuccessResponse)
			}
			if isFrozen && e.Enabled != info.WhileFrozen {
				t.Errorf("%s: while frozen %v, the reference says %v", info.Name, info.WhileFrozen, e.Enabled)
			}
		}
	}
	if frozen != 1 {
		t.Errorf("%d captures of a frozen agent, want 1", frozen)
	}
}

func TestWhence(t *testing.T) {
	for want, name := range map[Whence]string{SeekSet: "set", SeekCur: "cur", SeekEnd: "end"} {
		w := Whence(-1)
		if !w.FromString(name) || w != want {
			t.Errorf("FromString(%q) gave %d, want %d", name, w, want)
		}
	}
	for _, name := range []string{"", "SET", "start", "0"} {
		if w := Whence(7); w.FromString(name) || w != 7 {
			t.Errorf("FromString(%q) gave %d, want a refusal", name, w)
		}
	}
	for _, n := range []int64{0, 2, 3, -1, 1 << 40} {
		var w Whence
		w.FromInt(n)
		if got := w.WireValue(); got != n {
			t.Errorf("FromInt(%d) goes out as %v", n, got)
		}
	}
}

func TestCaptureOutput(t *testing.T) {
	wire := map[CaptureOutput]any{
		CaptureNone: false, CaptureStdout: "stdout", CaptureStderr: "stderr",
		CaptureSeparated: true, CaptureMerged: "merged",
	}
	if got := len(CaptureNone.EnumValues()); got != len(wire) {
		t.Errorf("%d values, want %d", got, len(wire))
	}
	for _, name := range CaptureNone.EnumValues() {
		var c CaptureOutput
		if !c.FromString(name) || string(c) != name {
			t.Errorf("FromString(%q) gave %q", name, c)
		}
		sent := c.WireValue()
		if sent != wire[c] {
			t.Errorf("%q goes out as %v, want %v", c, sent, wire[c])
		}
		if b, ok := sent.(bool); ok {
			back := CaptureMerged
			back.FromBool(b)
			if back != c {
				t.Errorf("%q comes back as %q", c, back)
			}
		}
	}
	for _, name := range []string{"", "both", "None", "true"} {
		if c := CaptureMerged; c.FromString(name) || c != CaptureMerged {
			t.Errorf("FromString(%q) gave %q, want a refusal", name, c)
		}
	}
}
