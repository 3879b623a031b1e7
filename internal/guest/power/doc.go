// Package power has the guest shut down, and sleep. Both end well by ending: a
// client learns of success from the machine, not from a reply.
package power
