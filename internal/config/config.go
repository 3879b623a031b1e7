// Package config reads the agent's options: the command line, the
// configuration file and the defaults, merged by the rules of the C agent, so
// that its unit files, sysconfig files and provisioning scripts keep working.
//
// The keys of the group [general] are the C agent's. What this agent adds is
// in a group of its own, [bellhop], which the C agent ignores: one file serves
// both.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// The channel methods.
const (
	MethodVirtioSerial = "virtio-serial"
	MethodISASerial    = "isa-serial"
	MethodUnixListen   = "unix-listen"
	MethodVsockListen  = "vsock-listen"
)

const (
	groupGeneral = "general"
	groupBellhop = "bellhop"
)

// Config is the agent's configuration.
type Config struct {
	Daemon  bool   // go to the background; on Windows, run as a service
	Service string // Windows: what -s asks of the service control manager

	// Method is how the agent meets its host, one of the Method constants, and
	// Path where: a device, a socket path or, for vsock-listen, CID:PORT.
	Method, Path string

	// LogFile, when not empty, receives the log in place of LogTarget.
	LogFile string

	PidFile  string // written only with Daemon
	StateDir string // an existing directory for what outlives the agent

	// FsfreezeHook, when not empty, is the program to run before a freeze and
	// after a thaw.
	FsfreezeHook string

	Verbose   bool // log every level
	RetryPath bool // open the channel again after a failure, for ever

	// BlockRPCs and AllowRPCs name the commands to disable and, if there are
	// any, the only ones to enable. Entries are taken as they are, unknown
	// names included. Each list of the command line or the file is in here
	// with its entries in reverse, which is seen only in a dump.
	BlockRPCs, AllowRPCs []string

	Extensions

	// Warnings are remarks about the configuration, to be logged once.
	Warnings []string

	set uint8 // which of the keys that have no default were given
}

// What Config.set holds: a dump tells a key that is empty from one that is absent.
const (
	setPath = 1 << iota
	setLogFile
	setFsfreezeHook
)

// Action is what the command line asks for.
type Action int

// The actions.
const (
	Run            Action = iota // be the agent
	ShowVersion                  // print the version and exit
	ShowHelp                     // print Usage and exit
	ListCommands                 // print the commands' names, one a line, and exit
	DumpConf                     // print Config.Dump and exit
	ControlService               // Windows: do Config.Service and exit
)

// Source is what the configuration is read from.
type Source struct {
	Args      []string // the command line, the program's name first
	LookupEnv func(string) (string, bool)

	// Activated is the method that belongs to the socket which a service
	// manager passed to the agent, or empty. It overrules Method, and no path
	// is needed then.
	Activated string
}

// options is the option table. Its order is that in which getopt_long proposes
// them.
var options = append([]option{
	{letter: 'h', long: "help"},
	{letter: 'V', long: "version"},
	{letter: 'c', long: "config", arg: requiredArgument},
	{letter: 'D', long: "dump-conf"},
	{letter: 'l', long: "logfile", arg: requiredArgument},
	{letter: 'f', long: "pidfile", arg: requiredArgument},
	{letter: 'F', long: "fsfreeze-hook", arg: optionalArgument},
	{letter: 'v', long: "verbose"},
	{letter: 'm', long: "method", arg: requiredArgument},
	{letter: 'p', long: "path", arg: requiredArgument},
	{letter: 'd', long: "daemonize"},
	{letter: 'b', long: "block-rpcs", arg: requiredArgument},
	{letter: 'b', long: "blacklist", arg: requiredArgument, hidden: true}, // until QEMU 9.1
	{letter: 'a', long: "allow-rpcs", arg: requiredArgument},
	{letter: 't', long: "statedir", arg: requiredArgument},
	{letter: 'r', long: "retry-path"},
}, systemOptions...)

// Load merges the defaults, the configuration file and the command line, each
// overriding the one before, except that the lists of commands accumulate.
//
// As in the C agent, options act from left to right: -V, -h and a list of
// commands decide the action at once, and mistakes behind them are not seen.
// The configuration file is read before any of them; a file that cannot be
// used is always an error.
//
// Errors are for Report.
func Load(src Source) (*Config, Action, error) {
	c := &Config{
		Method:     MethodVirtioSerial,
		StateDir:   defaultStateDir(src.LookupEnv),
		PidFile:    defaultPidFile(src.LookupEnv),
		Extensions: defaultExtensions(),
	}
	if err := c.loadFile(src); err != nil {
		return nil, Run, err
	}
	action, err := c.parse(src.Args)
	if err != nil {
		return nil, Run, err
	}
	if action != Run && action != DumpConf {
		return c, action, nil
	}
	if err := c.complete(src.Activated, action); err != nil {
		return nil, Run, err
	}
	return c, action, nil
}

// loadFile reads the configuration file that -c names, else QGA_CONF, else the
// usual one, which only in the first case has to exist.
func (c *Config) loadFile(src Source) error {
	path, named := configOption(src.Args)
	if !named {
		var ok bool
		if path, ok = src.LookupEnv("QGA_CONF"); !ok {
			path = defaultConfigPath(src.LookupEnv)
		}
	}
	data, err := readRegular(path)
	if err != nil && !named && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		var f *keyFile
		if f, err = parseKeyFile(data); err == nil {
			err = c.apply(f)
		}
	}
	if err != nil {
		return fmt.Errorf("error loading configuration from path: %s, %w", path, err)
	}
	return nil
}

// configOption returns the argument of the last -c. Mistakes on the way are
// reported by the second walk over the command line, if it comes to that.
func configOption(args []string) (path string, named bool) {
	g := getopt{options: options, args: operands(args)}
	for {
		o, arg, _, ok, err := g.next()
		switch {
		case !ok:
			return path, named
		case err == nil && o.letter == 'c':
			path, named = arg, true
		}
	}
}

// operands is args without the program's name, which an odd caller may leave out.
func operands(args []string) []string {
	if len(args) == 0 {
		return nil
	}
	return args[1:]
}

// readRegular reads a regular file. The check comes before the opening, because
// opening a FIFO would wait for a writer.
func readRegular(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", strerror.Reason(err)
	case !info.Mode().IsRegular():
		return "", errors.New("Not a regular file") //nolint:staticcheck // the text of glib
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", strerror.Reason(err)
	}
	return string(data), nil
}

// apply takes over the contents of a configuration file.
func (c *Config) apply(f *keyFile) error {
	for _, k := range []struct {
		key string
		to  *bool
	}{
		{"daemon", &c.Daemon},
		{"verbose", &c.Verbose},
		{"retry-path", &c.RetryPath},
	} {
		value, ok, err := f.boolean(groupGeneral, k.key)
		if err != nil {
			return err
		}
		if ok {
			*k.to = value
		}
	}
	for _, k := range []struct {
		key string
		to  *string
		set uint8
	}{
		{"method", &c.Method, 0},
		{"path", &c.Path, setPath},
		{"logfile", &c.LogFile, setLogFile},
		{"pidfile", &c.PidFile, 0},
		{"fsfreeze-hook", &c.FsfreezeHook, setFsfreezeHook},
		{"statedir", &c.StateDir, 0},
	} {
		value, ok, err := f.text(groupGeneral, k.key)
		if err != nil {
			return err
		}
		if ok {
			*k.to = value
			c.set |= k.set
		}
	}
	for _, k := range []struct {
		key string
		to  *[]string
	}{
		{"block-rpcs", &c.BlockRPCs},
		{"blacklist", &c.BlockRPCs},
		{"allow-rpcs", &c.AllowRPCs},
	} {
		value, ok, err := f.text(groupGeneral, k.key)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if k.key == "blacklist" {
			c.Warnings = append(c.Warnings,
				"config using deprecated 'blacklist' key, should be replaced with the 'block-rpcs' key.")
		}
		*k.to = appendList(*k.to, value)
	}
	return c.Extensions.apply(f)
}

// parse takes over the command line.
func (c *Config) parse(args []string) (Action, error) {
	action := Run
	for g := (getopt{options: options, args: operands(args)}); ; {
		o, arg, given, ok, err := g.next()
		if err != nil {
			return Run, err
		}
		if !ok {
			return action, nil
		}
		switch o.letter {
		case 'h':
			return ShowHelp, nil
		case 'V':
			return ShowVersion, nil
		case 'D':
			action = DumpConf
		case 'd':
			c.Daemon = true
		case 'v':
			c.Verbose = true
		case 'r':
			c.RetryPath = true
		case 'm':
			c.Method = arg
		case 'p':
			c.Path = arg
			c.set |= setPath
		case 'l':
			c.LogFile = arg
			c.set |= setLogFile
		case 'f':
			c.PidFile = arg
		case 't':
			c.StateDir = arg
		case 'F':
			c.FsfreezeHook = arg
			if !given {
				c.FsfreezeHook = defaultFsfreezeHook
			}
			c.set |= setFsfreezeHook
		case 'b', 'a':
			if arg == "help" || arg == "?" {
				return ListCommands, nil
			}
			if o.letter == 'b' {
				c.BlockRPCs = appendList(c.BlockRPCs, arg)
			} else {
				c.AllowRPCs = appendList(c.AllowRPCs, arg)
			}
		case 's':
			if serviceControl {
				c.Service = arg
				return ControlService, nil
			}
		}
	}
}

// appendList appends the comma-separated entries of text in reverse. Nothing
// is trimmed, and an entry may be empty; only an empty text has no entries.
func appendList(list []string, text string) []string {
	for more := text != ""; more; {
		i := strings.LastIndexByte(text, ',')
		list = append(list, text[i+1:])
		if more = i >= 0; more {
			text = text[:i]
		}
	}
	return list
}

// complete settles where the channel is.
func (c *Config) complete(activated string, action Action) error {
	if activated != "" {
		c.Method = activated
		return nil
	}
	if c.set&setPath == 0 {
		path, ok := defaultPaths[c.Method]
		if !ok {
			return errNoPath
		}
		c.Path = path
		c.set |= setPath
	}
	// A dump shows what there is, as in the C agent, which stumbles over a
	// method only when it opens the channel.
	if action == Run && !slices.Contains(methods, c.Method) {
		return fmt.Errorf("unsupported channel method/type: %s", c.Method)
	}
	return nil
}

var errNoPath = errors.New("must specify a path for this channel")

// Report tells the user why Load failed, in the C agent's words and on the
// same streams, and returns the exit status. argv0 is the program's name.
func Report(err error, argv0 string, stdout, stderr io.Writer) (status int) {
	var usage *UsageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%s: %v\n", argv0, usage)
		fmt.Fprintf(stdout, "Unknown option, try '%s --help' for more information.\n", argv0)
	case errors.Is(err, errNoPath):
		fmt.Fprintf(stderr, "%s: %v: use -p PATH, or path=PATH in the configuration file\n", argv0, err)
	default:
		fmt.Fprintf(stderr, "%s: %v\n", argv0, err)
	}
	return 1
}
