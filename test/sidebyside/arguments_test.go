//go:build linux

package sidebyside

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/test/vm"
)

// harmless returns a program that is the given one without any right to change
// this machine, in case that it does what it was not asked correctly. It may only
// read, as programs may be where only root can.
func harmless(t testing.TB, program string) string {
	t.Helper()
	return apart(t, "setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all,+dac_read_search "+
		"--inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search "+program, "chown 65534 .")
}

// An argument of a command, with what may be sent for it.
type argument struct {
	name     string
	optional bool
	good     string
	wrong    []string
}

// Values of each type of JSON, and what is near to one.
var (
	numbers = []string{
		"0", "1", "-1", "1.5", "5.0", "1e3", "-0", "-0.0",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
		"18446744073709551615", "18446744073709551616",
	}
	others = []string{"null", "true", "false", `""`, `"0"`, `"no such value"`, `"a\u0000b"`, "{}", `{"a":1}`, "[]", "[0]", "[null]", `["a"]`}
)

// notOf returns the values that are none of the given types: their first bytes.
func notOf(first string) []string {
	var list []string
	for _, v := range slices.Concat(numbers, others) {
		if !strings.ContainsAny(v[:1], first) {
			list = append(list, v)
		}
	}
	return list
}

// numeric is what numbers begin with.
const numeric = "-0123456789"

// arguments returns what a struct of arguments consists of.
func arguments(t *testing.T, typ reflect.Type) []argument {
	t.Helper()
	var list []argument
	for f := range typ.Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		a := argument{name: name, optional: option == "omitempty"}
		a.good, a.wrong = values(t, f.Type)
		list = append(list, a)
	}
	return list
}

// values returns a value that a type takes, and those that it does not.
func values(t *testing.T, typ reflect.Type) (good string, wrong []string) {
	t.Helper()
	switch typ {
	case reflect.TypeFor[qga.Whence]():
		// Codes that do not exist are refused later, by the command itself.
		wrong = []string{"-1", "3", "9223372036854775807", "-9223372036854775808", "1.5", "5.0", "9223372036854775808", "18446744073709551616", `"Set"`, `""`}
		return `"set"`, append(wrong, notOf(numeric+`"`)...)
	case reflect.TypeFor[qga.CaptureOutput]():
		return `"none"`, append(notOf(`"tf`), `"None"`, `""`, `"no such value"`, `"stdout,stderr"`)
	case reflect.TypeFor[[]byte]():
		return `""`, append(notOf(`"`), `"not base64"`, `"YQ-_"`, `"YQ\r\n"`, `"é"`, `"a\u0000"`)
	case reflect.TypeFor[qga.ShutdownMode]():
		return `"no such mode"`, append(notOf(`"`), `""`, `"Halt"`, `"halt "`)
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return values(t, typ.Elem())
	case reflect.String:
		return `"/no-such-thing"`, notOf(`"`)
	case reflect.Bool:
		return "true", notOf("tf")
	case reflect.Int64:
		return "1000", append(notOf(numeric), outOf(`9223372036854775807`, `-9223372036854775808`)...)
	case reflect.Uint64:
		// Negative numbers are no uint64 to us, and wrap around in the C agent.
		return "18446744073709551615", append(notOf(numeric), outOf(`18446744073709551615`)...)
	case reflect.Slice:
		element, bad := values(t, typ.Elem())
		wrong = notOf("[")
		for _, b := range bad {
			wrong = append(wrong, "["+b+"]", fmt.Sprintf("[%s,%s,%[1]s]", element, b))
		}
		return "[" + element + "]", wrong
	case reflect.Struct:
		members := arguments(t, typ)
		return object(members, nil), append(notOf("{"), wrongObjects(members)...)
	}
	t.Fatalf("no values of %v", typ)
	return "", nil
}

// outOf returns numbers that are none of a type's, whose limits are given.
func outOf(limits ...string) []string {
	list := []string{"1.5", "5.0", "1e3", "-0.0", "18446744073709551616", "-9223372036854775809"}
	for _, l := range limits {
		list = append(list, l+".0", l+"0")
	}
	if !slices.Contains(limits, "18446744073709551615") {
		list = append(list, "9223372036854775808", "18446744073709551615")
	}
	return list
}

// object returns an object with good values, but for those that are given: an
// empty one is left out. Names that are no argument's are unexpected.
func object(args []argument, given map[string]string) string {
	given = maps.Clone(given)
	var members []string
	for _, a := range args {
		v, ok := given[a.name]
		if !ok {
			v = a.good
		}
		delete(given, a.name)
		if v != "" {
			members = append(members, fmt.Sprintf("%q:%s", a.name, v))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		members = append(members, fmt.Sprintf("%q:%s", name, given[name]))
	}
	slices.Reverse(members) // the order of the text is not that of the checks
	return "{" + strings.Join(members, ",") + "}"
}

// wrongObjects returns all objects with one thing that is wrong, and some with two.
func wrongObjects(args []argument) []string {
	unexpected := func(with map[string]string) map[string]string {
		with = maps.Clone(with)
		with["unexpected"] = "1"
		return with
	}
	none := map[string]string{}
	list := []string{
		object(args, unexpected(none)),
		object(args, map[string]string{"": "null"}),
		object(args, map[string]string{"one": "1", "two": "{}", "three": "[]", "é": "0"}),
	}
	if len(args) > 0 {
		list = append(list, object(args, map[string]string{strings.ToUpper(args[0].name): "0"}))
	}
	for i, a := range args {
		if !a.optional {
			list = append(list, object(args, map[string]string{a.name: ""}), object(args, unexpected(map[string]string{a.name: ""})))
		}
		for _, w := range a.wrong {
			list = append(list, object(args, map[string]string{a.name: w}))
		}
		// Of two, one is named, wherever it stands.
		for _, b := range args[i+1:] {
			for _, given := range []map[string]string{
				{a.name: a.wrong[0], b.name: b.wrong[0]},
				{a.name: a.wrong[0], b.name: ""},
				unexpected(map[string]string{a.name: a.wrong[0], b.name: b.wrong[0]}),
			} {
				list = append(list, object(args, given))
			}
			if !a.optional {
				list = append(list, object(args, map[string]string{a.name: "", b.name: b.wrong[0]}))
			}
		}
	}
	return list
}

// TestArguments calls every command with arguments that are wrong in every way
// that their types allow. Both agents must refuse them in the same words.
func TestArguments(t *testing.T) {
	c, ours := start(t, harmless(t, cAgent(t))), start(t, harmless(t, vm.Build(t, "./cmd/qemu-ga").Path))

	// It has the handle 1000, so that there is a file for what else is wrong.
	same(t, c, ours, `{"execute":"guest-file-open","arguments":{"path":"/dev/null","mode":"r+"}}`)

	n := 0
	for _, d := range qga.Commands() {
		name := d.Describe().Name
		t.Run(name, func(t *testing.T) {
			wrong := notOf("{")
			if d.ArgsType().Kind() == reflect.Struct {
				wrong = append(wrong, wrongObjects(arguments(t, d.ArgsType()))...)
			}
			for _, w := range wrong {
				request := fmt.Sprintf(`{"execute":%q,"arguments":%s}`, name, w)
				want, got := refusal(t, c, request), refusal(t, ours, request)
				switch {
				case !strings.HasPrefix(want, `{"error": `) || strings.Count(want, "\n") != 1:
					t.Errorf("%s is not wrong: the C agent replies %q", request, want)
				case got != want:
					t.Errorf("%s\n got %q\nwant %q", request, got, want)
				}
				n++
			}
		})
	}
	t.Logf("%d requests", n)
}

// refusal returns what an agent replies to a request, without what it says of the
// sentinel that comes after it.
func refusal(t *testing.T, path, request string) string {
	t.Helper()
	reply := string(withoutPosition(exchange(t, path, []byte(request))))
	return strings.TrimSuffix(reply, `{"error": {"class": "GenericError", "desc": "JSON parse error, stray '\uFFFD'"}}`+"\n")
}
