// Package disks tells what block devices the guest has, where in the machine
// they are, how they build on each other, and what was read from and written to
// them.
package disks
