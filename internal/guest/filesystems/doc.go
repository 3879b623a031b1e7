// Package filesystems tells which file systems are mounted, how full they are
// and on which disks they lie.
package filesystems
