// Package threads sees to how the kernel schedules the threads of the Go runtime,
// of which a program knows nothing otherwise.
package threads
