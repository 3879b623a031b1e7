// Package channel is how hosts reach the agent: a virtio-serial port, a serial
// line, or a listening socket of the unix or vsock kind.
//
// Each of them yields one stream a client and goes on for ever: a host that
// leaves, a port that is unplugged and a serial line that hangs up are waited
// out. Waiting costs no CPU: everything goes through the runtime's poller,
// whose events are edge-triggered, and what has to be tried again is tried
// once a second.
package channel
