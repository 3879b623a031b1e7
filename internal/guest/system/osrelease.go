//go:build unix

package system

import (
	"os"
	"strings"
)

// osRelease returns the contents of the first os-release file that there is,
// or nothing.
func (s System) osRelease() string {
	paths := []string{"/etc/os-release", "/usr/lib/os-release"}
	if p, ok := os.LookupEnv("QGA_OS_RELEASE"); ok {
		paths = []string{p}
	}
	for _, p := range paths {
		if data, err := s.Root.ReadDiskFile(p); err == nil {
			return string(data)
		}
	}
	return ""
}

// parseOSRelease calls found for each assignment in the text of an os-release
// file. One that repeats a key replaces the earlier. Lines that are neither an
// assignment nor a comment are skipped.
func parseOSRelease(text string, found func(key, value string)) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if ok {
			// A shell would not have it, but the C agent takes blanks around
			// the equals sign.
			found(strings.TrimRight(key, " \t"), unquote(strings.TrimLeft(value, " \t")))
		}
	}
}

// unquote returns the word at the beginning of s as a shell would read it,
// without expanding anything. A quote that is not closed reaches to the end.
func unquote(s string) string {
	var word strings.Builder
	word.Grow(len(s))
	var quote byte // the one we are in, or 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && (c == ' ' || c == '\t' || c == ';'):
			return word.String()
		case c == '\\' && quote != '\'' && i+1 < len(s) && (quote == 0 || strings.IndexByte("$'\"\\`", s[i+1]) >= 0):
			i++
			word.WriteByte(s[i])
		default:
			word.WriteByte(c)
		}
	}
	return word.String()
}
