// Package exec runs programs for hosts: it starts them without waiting for
// their end, collects what they print, and keeps the outcome until the host
// has had time to ask for it.
//
// A running program costs no thread. What it prints and what is kept of
// programs that are gone is bounded, in number and in bytes.
package exec
