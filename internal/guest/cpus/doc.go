// Package cpus tells which processors the guest has and how busy they are, and
// takes them online and offline.
package cpus
