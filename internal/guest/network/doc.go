// Package network tells which network interfaces the guest has, with their
// addresses and counters, and its routes.
//
// On Linux the interfaces come from the kernel over rtnetlink: two dumps, one of
// the links, which carries the counters, and one of the addresses. The dump is
// our own, some hundred lines of it. Package net reads the same messages but
// keeps neither labels nor counters, and it and the netlink libraries, which
// build on it, are each several times what the rest of this package weighs in
// an agent that is to stay small.
//
// Routes come from /proc/net, whose fields are those of the protocol: flags and
// reference counts of an IPv6 route are not to be had over rtnetlink.
package network
