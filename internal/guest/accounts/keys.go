package accounts

import (
	"slices"
	"strings"

	"github.com/bellhop-vm/bellhop/qga"
)

// checkKeys refuses what would not be a line of its own in authorized_keys, or
// one that sshd ignores. What makes a key is for sshd to say.
func checkKeys(keys []string) error {
	for _, key := range keys {
		if strings.HasPrefix(key, "#") || strings.Contains(key, "\n") {
			return qga.Failure("invalid OpenSSH public key: '" + key + "'")
		}
	}
	return nil
}

// parseKeys returns the keys in the text of an authorized_keys file: the lines
// that are neither blank nor comments. The last comes first, as with the C
// agent.
func parseKeys(text string) []string {
	keys := []string{} // none is an empty list in the reply
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' {
			keys = append(keys, line)
		}
	}
	slices.Reverse(keys)
	return keys
}

// splitLines returns the lines of a file without the blank ones at its end.
func splitLines(text string) []string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// addKeys returns lines and behind them those of the keys that are not among
// them.
func addKeys(lines, keys []string) []string {
	present := make(map[string]bool, len(lines)+len(keys))
	present[""] = true // a blank line is no key
	for _, line := range lines {
		present[line] = true
	}
	for _, key := range keys {
		if !present[key] {
			present[key] = true
			lines = append(lines, key)
		}
	}
	return lines
}

// removeKeys returns the lines that are none of the keys.
func removeKeys(lines, keys []string) []string {
	unwanted := make(map[string]bool, len(keys))
	for _, key := range keys {
		unwanted[key] = true
	}
	return slices.DeleteFunc(lines, func(line string) bool { return unwanted[line] })
}

// joinLines is the inverse of splitLines.
func joinLines(lines []string) string {
	var text strings.Builder
	for _, line := range lines {
		text.WriteString(line)
		text.WriteByte('\n')
	}
	return text.String()
}
