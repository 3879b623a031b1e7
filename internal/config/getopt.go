package config

import "strings"

// argument says whether an option takes an argument.
type argument int

const (
	noArgument       argument = iota
	requiredArgument          // -oARG, -o ARG, --opt=ARG, --opt ARG
	optionalArgument          // -o[ARG], --opt[=ARG]: only attached
)

// option is one row of the option table. An option without a long name has
// only its letter.
type option struct {
	letter byte
	long   string
	arg    argument

	// hidden options work but are not proposed when a prefix is ambiguous.
	hidden bool
}

// UsageError is a mistake on the command line: an unknown or ambiguous
// option, or a missing or superfluous argument. Its text is what getopt_long
// of the C library prints, without the program's name.
type UsageError struct{ text string }

func (e *UsageError) Error() string { return e.text }

// getopt walks through a command line as getopt_long of the C library does
// with permutation: operands may stand anywhere and are skipped, "--" ends the
// options. The agent's command lines live in unit files and provisioning
// scripts written for that parser, which is why package flag will not do: it
// has neither clusters of letters, nor attached arguments, nor prefixes.
type getopt struct {
	options []option
	args    []string // what is left, without the program's name
	cluster string   // rest of a group of letters such as -vD
}

// next returns the option that comes next and its argument. given tells an
// empty argument from a missing optional one. ok is false at the end. After a
// *UsageError the walk may go on behind the mistake.
func (g *getopt) next() (o option, arg string, given, ok bool, err error) {
	for g.cluster == "" {
		if len(g.args) == 0 {
			return option{}, "", false, false, nil
		}
		word := g.args[0]
		g.args = g.args[1:]
		switch {
		case word == "--":
			g.args = nil
		case strings.HasPrefix(word, "--"):
			return g.long(word)
		case len(word) > 1 && word[0] == '-':
			g.cluster = word[1:]
		}
	}
	return g.short()
}

func (g *getopt) short() (o option, arg string, given, ok bool, err error) {
	letter := g.cluster[0]
	g.cluster = g.cluster[1:]
	for _, o := range g.options {
		if o.letter != letter {
			continue
		}
		if o.arg == noArgument {
			return o, "", false, true, nil
		}
		if g.cluster != "" {
			arg, g.cluster = g.cluster, ""
			return o, arg, true, true, nil
		}
		if o.arg == optionalArgument {
			return o, "", false, true, nil
		}
		arg, found := g.shift()
		if !found {
			return option{}, "", false, true, &UsageError{"option requires an argument -- '" + string([]byte{letter}) + "'"}
		}
		return o, arg, true, true, nil
	}
	return option{}, "", false, true, &UsageError{"invalid option -- '" + string([]byte{letter}) + "'"}
}

func (g *getopt) long(word string) (o option, arg string, given, ok bool, err error) {
	name, arg, given := strings.Cut(word[len("--"):], "=")
	o, err = g.lookup(word, name)
	switch {
	case err != nil:
	case given && o.arg == noArgument:
		err = &UsageError{"option '--" + o.long + "' doesn't allow an argument"}
	case !given && o.arg == requiredArgument:
		if arg, given = g.shift(); !given {
			err = &UsageError{"option '--" + o.long + "' requires an argument"}
		}
	}
	return o, arg, given, true, err
}

// lookup finds the option whose long name is name or, when there is only one
// such, begins with it. Names for the same letter are one option.
func (g *getopt) lookup(word, name string) (option, error) {
	var found []option
	for _, o := range g.options {
		switch {
		case o.long == "" || !strings.HasPrefix(o.long, name):
		case o.long == name:
			return o, nil
		case len(found) == 1 && found[0].letter == o.letter:
		case !o.hidden || len(found) == 0:
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return option{}, &UsageError{"unrecognized option '" + word + "'"}
	case 1:
		return found[0], nil
	}
	text := "option '" + word + "' is ambiguous; possibilities:"
	for _, o := range found {
		text += " '--" + o.long + "'"
	}
	return option{}, &UsageError{text}
}

func (g *getopt) shift() (string, bool) {
	if len(g.args) == 0 {
		return "", false
	}
	arg := g.args[0]
	g.args = g.args[1:]
	return arg, true
}
