// Package memory tells into which blocks the guest's memory is divided, and
// takes them online and offline.
package memory
