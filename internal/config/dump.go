package config

import (
	"bytes"
	"strconv"
	"strings"
	"time"
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
	extensions := c.Extensions.dump()
	if bytes.Equal(extensions, defaultExtensions().dump()) {
		return b
	}
	return append(append(b, '\n'), extensions...)
}

func (x Extensions) dump() []byte {
	b := []byte("[" + groupBellhop + "]\n")
	b = appendText(b, "exec-pipe-grace", seconds(x.ExecPipeGrace))
	b = appendText(b, "exec-result-lifetime", seconds(x.ExecResultLifetime))
	b = appendText(b, "exec-max-records", strconv.Itoa(x.ExecMaxRecords))
	b = appendText(b, "exec-max-output", strconv.Itoa(x.ExecMaxOutput))
	b = appendText(b, "log-target", string(x.LogTarget))
	return appendText(b, "network-exclude", strings.Join(x.NetworkExclude, ","))
}

func appendText(b []byte, key, value string) []byte {
	b = append(append(b, key...), '=')
	return append(appendEscaped(b, value), '\n')
}

func appendBool(b []byte, key string, value bool) []byte {
	return appendText(b, key, strconv.FormatBool(value))
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
