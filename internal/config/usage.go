package config

import (
	"os"
	"strings"
)

// Version returns the line that -V prints, which programs parse: the name
// before the version is that of the C agent.
func Version(version string) string { return "QEMU Guest Agent " + version + "\n" }

// Usage returns the text that -h prints.
func Usage(argv0, version string) string {
	text := strings.NewReplacer(
		"@ARGV0@", argv0,
		"@METHODS@", strings.Join(methods, ", "),
		"@VIRTIO@", defaultPaths[MethodVirtioSerial],
		"@SERIAL@", defaultPaths[MethodISASerial],
		"@CONF@", defaultConfigPath(os.LookupEnv),
		"@STATE@", defaultStateDir(os.LookupEnv),
		"@PID@", defaultPidFile(os.LookupEnv),
		"@HOOK@", defaultFsfreezeHook,
	).Replace(usage)
	if serviceControl {
		text = strings.Replace(text, "Information:\n", usageService+"Information:\n", 1)
	}
	return Version(version) + text
}

const usage = `
Usage: @ARGV0@ [OPTION]...

Lets the host of this virtual machine look after it: serves the QEMU guest
agent protocol on a channel between the two.

Channel:
  -m, --method=METHOD    what the channel is, one of
                         @METHODS@
                         (default: virtio-serial)
  -p, --path=PATH        where the channel is: a device, a socket, or CID:PORT
                         for vsock-listen (default for virtio-serial:
                         @VIRTIO@,
                         for isa-serial: @SERIAL@)
  -r, --retry-path       open the channel again after a failure, for ever

Commands:
  -b, --block-rpcs=LIST  disable these commands: names with commas between them,
                         without blanks; "help" lists all names
  -a, --allow-rpcs=LIST  enable no commands but these
  -F, --fsfreeze-hook[=PATH]
                         run this program before the file systems are frozen and
                         after they are thawed; PATH has to follow -F without a
                         blank (default: @HOOK@)

Process:
  -d, --daemonize        go to the background once the channel is open
  -f, --pidfile=PATH     with -d, write the process id there
                         (default: @PID@)
  -t, --statedir=DIR     keep state there (default: @STATE@)
  -l, --logfile=PATH     append the log to this file, not to standard error;
                         SIGHUP opens it anew
  -v, --verbose          log everything, not only errors

Configuration:
  -c, --config=PATH      read this configuration file, which has to exist
                         (default: the file that the environment variable
                         QGA_CONF names, else
                         @CONF@)
  -D, --dump-conf        print the configuration that results and exit

Information:
  -V, --version          print the version and exit
  -h, --help             print this text and exit

Long names may be shortened as long as they stay unique. The configuration file
takes the long names in its group [general], without dashes before them (and
daemon for --daemonize). What this agent has beyond the protocol is set in the
group [bellhop]:
  exec-pipe-grace, exec-result-lifetime, exec-max-records, exec-max-output
  freeze-timeout, freeze-mount-limit, freeze-limit, freeze-exclude,
  freeze-hook-dir, freeze-hook-limit, freeze-hook-errors (fail or ignore)
  log-target (stderr, syslog or journal)
  network-exclude
Times are seconds. What to exclude is shell patterns with commas between them,
of mount points and of names of network interfaces.

Exit status: 0 after a signal to stop and after printing what was asked for,
1 when an option, the configuration, the channel, the log file, the pid file or
the state directory is not usable.
`

const usageService = `Service:
  -s, --service=COMMAND  install, uninstall, vss-install or vss-uninstall; options
                         before this one are handed on to the service

`
