// Package resident says what of the program itself is in memory: as little as
// possible while the agent idles, all of it while nothing may be read from a
// disk.
package resident
