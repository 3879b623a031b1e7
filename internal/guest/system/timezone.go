//go:build unix

package system

import (
	"encoding/binary"
	"strings"
	"time"
)

// zoneDirs are where systems keep their time zones.
var zoneDirs = []string{"/usr/share/zoneinfo/", "/usr/lib/zoneinfo/", "/usr/share/lib/zoneinfo/", "/etc/zoneinfo/"}

// location returns the time zone that the variable TZ stands for, if it is
// set, or the one of /etc/localtime. What means nothing means UTC.
//
// Package time knows the way as well, but goes it only once, and not for zones
// that TZ describes rather than names.
func (s System) location(tz string, set bool) *time.Location {
	if !set {
		if l := s.load("/etc/localtime"); l != nil {
			return l
		}
		return time.UTC
	}
	name, mustBeFile := strings.CutPrefix(tz, ":")
	switch {
	case name == "":
		return time.UTC
	case strings.HasPrefix(name, "/"):
		if l := s.load(name); l != nil {
			return l
		}
		return time.UTC
	}
	for _, dir := range zoneDirs {
		if l := s.load(dir + name); l != nil {
			return l
		}
	}
	if mustBeFile {
		return time.UTC
	}
	return described(name)
}

// load returns the time zone in a file, or nil if there is none.
func (s System) load(path string) *time.Location {
	data, err := s.Root.ReadDiskFile(path)
	if err != nil {
		return nil
	}
	// Package time is content with a file of which the end is missing, where it says
	// how the time goes on; to the C library, and so to the system, it is none.
	if len(data) > 4 && data[4] >= '2' && data[len(data)-1] != '\n' {
		return nil
	}
	l, err := time.LoadLocationFromTZData("", data)
	if err != nil {
		return nil
	}
	return l
}

// described returns the time zone that tz describes in the manner of POSIX, as
// in CET-1CEST,M3.5.0,M10.5.0/3, or UTC if it makes no sense.
func described(tz string) *time.Location {
	if strings.Contains(tz, "\n") {
		return time.UTC
	}
	l, err := time.LoadLocationFromTZData("", zoneFile(tz))
	if err != nil {
		return time.UTC
	}
	return l
}

// zoneFile returns a time zone file (RFC 9636) with tz at its end, where it
// says how the time goes on after the last change on record. There is none, and
// before it is UTC. Package time understands such descriptions only there.
func zoneFile(tz string) []byte {
	const abbreviations = "UTC\x00"
	var b []byte
	for range 2 { // the data of version 1 are skipped, but have to be there
		b = append(b, "TZif2"...)
		b = append(b, make([]byte, 15)...)
		// Counts of: UT and standard indicators, leap seconds, changes, types
		// of local time, letters of abbreviations.
		for _, n := range []uint32{0, 0, 0, 0, 1, uint32(len(abbreviations))} {
			b = binary.BigEndian.AppendUint32(b, n)
		}
		b = append(b, 0, 0, 0, 0, 0, 0) // the one type: offset, daylight saving, abbreviation
		b = append(b, abbreviations...)
	}
	return append(b, "\n"+tz+"\n"...)
}
