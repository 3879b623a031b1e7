package config

import (
	"bytes"
	"strconv"
	"strings"
)

// Dump returns the configuration as a file that leads to it again, in the
// C agent's order of keys. The group [bellhop] is there only when one of its
// keys differs from its default, so that the dump of a plain configuration is
// the same text as ever.
func (c *Config) Dump() []byte {
	b := []byte("[" + groupGeneral + "]\n")
	b = appendBool(b, "daemon", c.Daemon)
	b = appendText(b, "method", c.Method)
	if c.set&setPath != 0 {
		b = appendText(b, "path", c.Path)
	}
	if c.set&setLogFile != 0 {
		b = appendText(b, "logfile", c.LogFile)
	}
	b = appendText(b, "pidfile", c.PidFile)
	if c.set&setFsfreezeHook != 0 {
		b = appendText(b, "fsfreeze-hook", c.FsfreezeHook)
	}
	b = appendText(b, "statedir", c.StateDir)
	b = appendBool(b, "verbose", c.Verbose)
	b = appendBool(b, "retry-path", c.RetryPath)
	b = appendText(b, "block-rpcs", strings.Join(c.BlockRPCs, ","))
	b = appendText(b, "allow-rpcs", strings.Join(c.AllowRPCs, ","))
	extensions, defaults := c.Extensions.dump(), defaultExtensions()
	if bytes.Equal(extensions, defaults.dump()) {
		return b
	}
	return append(append(b, '\n'), extensions...)
}

func appendText(b []byte, key, value string) []byte {
	b = append(append(b, key...), '=')
	return append(appendEscaped(b, value), '\n')
}

func appendBool(b []byte, key string, value bool) []byte {
	return appendText(b, key, strconv.FormatBool(value))
}
