// Package systemd is the agent's part of the service manager's protocol:
// readiness and watchdog messages, and a socket that was opened in advance.
// Outside of a service, and on other systems than Linux, everything in it does
// nothing.
package systemd

import (
	"errors"
	"os"
	"strconv"
	"time"
)

// The messages of the agent for Service.Notify.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Alive    = "WATCHDOG=1"
)

// The errors of Service.Listener, with the C agent's texts.
var (
	ErrManySockets = errors.New("qemu-ga only supports listening on one socket")
	ErrSocketType  = errors.New("unsupported listen fd type")
)

// Family is the address family of a socket.
type Family string

// The families of sockets that can be passed; they are named as the channel
// methods that go with them.
const (
	Unix  Family = "unix-listen"
	Vsock Family = "vsock-listen"
)

// Service is what the service manager asked of this process.
type Service struct {
	notifySocket string
	watchdog     time.Duration
	sockets      int
}

// variables are those that are addressed to this process.
var variables = []string{
	"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
	"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
}

// FromEnvironment reads what the service manager asks from the environment.
func FromEnvironment() *Service {
	return &Service{
		notifySocket: os.Getenv("NOTIFY_SOCKET"),
		watchdog:     watchdog(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")),
		sockets:      sockets(os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID")),
	}
}

// Keep keeps to this process what is meant for it: the variables leave the
// environment, and the sockets are closed in programs that it starts. A program
// started by guest-exec must not take them for its own.
func (s *Service) Keep() error {
	for _, name := range variables {
		os.Unsetenv(name) //nolint:errcheck // fails only for malformed names
	}
	return s.closeOnExec()
}

// watchdog returns the interval of the watchdog, or 0 if there is none. Without
// a process id it is meant for whoever sees it.
func watchdog(usec, pid string) time.Duration {
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(time.Duration(1<<63-1)/time.Microsecond) {
		return 0
	}
	if pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

func sockets(fds, pid string) int {
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return n
}

// Watchdog returns how often at least the manager wants to hear Alive, or 0 if
// it does not watch. Half of that is a good interval.
func (s *Service) Watchdog() time.Duration { return s.watchdog }
