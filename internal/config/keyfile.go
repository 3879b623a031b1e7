package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// keyFile is a parsed configuration file in the dialect of glib's GKeyFile:
//
//	# a comment, only on a line of its own
//	[group]
//	key=value
//
// Existing files were written for that dialect, so it decides what is
// accepted, what is refused and what a value is. Its peculiarities are that
// blanks at the end of a string value belong to it, that an escape is checked
// only when its value is asked for, and that a group or key given again is the
// same group with the last value winning.
type keyFile struct {
	groups map[string]map[string]string // raw values, not yet unescaped
	order  []entry
}

// entry is one key in the order of the file.
type entry struct {
	group, key string
	line       int
}

// errValue is the reason for a value that is not of the wanted kind.
var errValue = errors.New("a value that cannot be interpreted")

// parseKeyFile parses the contents of a configuration file.
func parseKeyFile(data string) (*keyFile, error) {
	f := &keyFile{groups: map[string]map[string]string{}}
	var group string
	var inGroup bool
	for n := 1; data != ""; n++ {
		var line string
		var terminated bool
		line, data, terminated = strings.Cut(data, "\n")
		if terminated {
			line = strings.TrimSuffix(line, "\r")
		}
		whole := line
		// As in C, a line ends at a zero byte.
		line, _, _ = strings.Cut(line, "\x00")
		line = strings.TrimLeft(line, blanks)
		if line == "" || line[0] == '#' {
			continue
		}
		if name, ok := groupLine(line); ok {
			if !validGroup(name) {
				return nil, fmt.Errorf("line %d: invalid group name %q", n, name)
			}
			group, inGroup = name, true
			if f.groups[group] == nil {
				f.groups[group] = map[string]string{}
			}
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("line %d: %q is not a key-value pair, group, or comment", n, whole)
		}
		if !inGroup {
			return nil, fmt.Errorf("line %d: the file does not start with a group", n)
		}
		key = strings.TrimRight(key, blanks)
		if !validKey(key) {
			return nil, fmt.Errorf("line %d: invalid key name %q", n, key)
		}
		f.groups[group][key] = strings.TrimLeft(value, blanks)
		f.order = append(f.order, entry{group, key, n})
	}
	return f, nil
}

// blanks is what C's isspace says of ASCII, without the vertical tab, which
// glib does not count.
const blanks = " \t\n\f\r"

// groupLine returns the name in a line of the form [name], which blanks may follow.
func groupLine(line string) (name string, ok bool) {
	if line[0] != '[' {
		return "", false
	}
	name, rest, ok := strings.Cut(line[1:], "]")
	return name, ok && strings.Trim(rest, " \t") == ""
}

func validGroup(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r == '[' || r < ' ' || r == 0x7f
	})
}

// validKey reports whether key is a name, or a name with a locale in brackets
// as in Name[de]. Keys of the second form are never looked at.
func validKey(key string) bool {
	name, locale, bracket := strings.Cut(key, "[")
	if name == "" || strings.Contains(name, "]") {
		return false
	}
	if !bracket {
		return true
	}
	locale, closed := strings.CutSuffix(locale, "]")
	return closed && !strings.HasSuffix(name, " ") && !strings.ContainsFunc(locale, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.@", r)
	})
}

// text returns the value of key as a string; ok is false when it is not there.
func (f *keyFile) text(group, key string) (value string, ok bool, err error) {
	raw, ok := f.groups[group][key]
	if !ok {
		return "", false, nil
	}
	if !utf8.ValidString(raw) {
		return "", true, fmt.Errorf("key %q has value %q, which is not UTF-8", key, raw)
	}
	value, err = unescape(raw)
	if err != nil {
		return "", true, fmt.Errorf("key %q has value %q: %w", key, raw, err)
	}
	return value, true, nil
}

// boolean returns the value of key as a truth value; ok is false when it is not there.
func (f *keyFile) boolean(group, key string) (value, ok bool, err error) {
	raw, ok := f.groups[group][key]
	if !ok {
		return false, false, nil
	}
	switch strings.TrimRight(raw, blanks) {
	case "true", "1":
		return true, true, nil
	case "false", "0":
		return false, true, nil
	}
	return false, true, fmt.Errorf("key %q is %q, want true or false: %w", key, raw, errValue)
}

var unescaper = map[byte]byte{'s': ' ', 't': '\t', 'n': '\n', 'r': '\r', '\\': '\\'}

func unescape(raw string) (string, error) {
	if !strings.Contains(raw, `\`) {
		return raw, nil
	}
	value := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '\\' {
			i++
			if i == len(raw) {
				return "", fmt.Errorf(`%w: it ends in a single \`, errValue)
			}
			var known bool
			if c, known = unescaper[raw[i]]; !known {
				return "", fmt.Errorf(`%w: \%c is not one of \s \t \n \r \\`, errValue, raw[i])
			}
		}
		value = append(value, c)
	}
	return string(value), nil
}

// appendEscaped appends value as it is written in a file. Blanks need an
// escape only at the start, where a reader would drop them.
func appendEscaped(b []byte, value string) []byte {
	leading := true
	for i := range len(value) {
		c := value[i]
		switch {
		case c == ' ' && leading:
			b = append(b, `\s`...)
		case c == '\t' && leading:
			b = append(b, `\t`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\\':
			b = append(b, `\\`...)
			leading = false
		default:
			b = append(b, c)
			leading = false
		}
	}
	return b
}
