// Package system tells what the guest is: its name, its operating system and
// its time zone.
package system
