#!/bin/sh
# capture.sh - write what the agent reads of a Linux guest as one text file, in
# which nobody can recognise the guest.
#
#	capture.sh [ANSWERS] >NAME.txt
#
# What is captured: block devices and what they are attached to, processors and
# memory blocks in /sys; udev's database; mounts, counters and routes in /proc;
# os-release. ANSWERS is a directory of replies of an agent in the same guest,
# each in a file with the name of its command; they go below answers/.
#
# The same stand-ins take the places of serial numbers of six characters or more,
# world wide names, UUIDs, MAC addresses (also in IPv6 addresses that contain
# one), the host's name and those of its users, wherever they appear. Names of
# volumes, mount points and network interfaces, and other IP addresses, stay: have
# a look at them before you give the result away.
#
# Run it as root; any sh, awk, od, readlink and uname will do, busybox's too.
#
# Each entry of the result begins with a line
#
#	-- PATH --              and a file's lines follow,
#	-- PATH (hex) --        and its bytes in hexadecimal digits: it is no text,
#	                        or does not end with a newline,
#	-- PATH -> TARGET --    a symbolic link,
#	-- PATH/ --             a directory.

set -eu
LC_ALL=C
export LC_ALL
answers=${1-}

file() { # [NAME-IN-RESULT] PATH
	for last; do :; done
	[ -f "$last" ] || return 0
	# Some attributes are there but cannot be read.
	hex=$(od -A n -v -t x1 "$last" 2>/dev/null) || return 0
	# shellcheck disable=SC2086 # the blanks are dropped later
	printf 'F\t%s\t%s\n' "$1" "$(echo $hex)"
}

link() {
	if [ -L "$1" ]; then printf 'L\t%s\t%s\n' "$1" "$(readlink "$1")"; fi
}

directory() {
	if [ -d "$1" ]; then printf 'D\t%s\n' "$1"; fi
}

# device writes a block device, given its directory.
device() {
	for attribute in uevent dev size partition serial nsid dm/name \
		device/vendor device/model device/serial device/vpd_pg80 device/vpd_pg83; do
		file "$1/$attribute"
	done
	directory "$1/slaves"
	for slave in "$1"/slaves/*; do link "$slave"; done
}

# parents writes what a device is attached to, up to /sys/devices.
parents() {
	parent=${1%/*}
	while [ "$parent" != /sys/devices ]; do
		case " $seen " in *" $parent "*) return ;; esac
		seen="$seen $parent"
		link "$parent/driver"
		file "$parent/serial"
		# The kernel's numbers tell which port it is only among their like.
		for sibling in "$parent"/ata[0-9]* "$parent"/host[0-9]* "$parent"/nvme[0-9]*; do
			if [ -L "$sibling" ]; then link "$sibling"; else directory "$sibling"; fi
		done
		parent=${parent%/*}
	done
}

collect() {
	printf 'N\t%s\n' "$(uname -n)"
	while IFS=: read -r user _ id _; do
		if [ "$id" -ge 1000 ] && [ "$id" -lt 60000 ]; then printf 'U\t%s\n' "$user"; fi
	done </etc/passwd

	seen=
	directory /sys/block
	directory /sys/dev/block
	for name in /sys/block/* /sys/dev/block/* /sys/class/block/*; do link "$name"; done
	for name in /sys/class/block/*; do
		[ -e "$name" ] || continue
		path=$(readlink -f "$name")
		device "$path"
		parents "$path"
	done
	for name in /sys/fs/btrfs/*/devices/*; do link "$name"; done
	for name in /run/udev/data/b*; do file "$name"; done

	for name in online offline present possible; do file "/sys/devices/system/cpu/$name"; done
	for name in /sys/devices/system/cpu/cpu[0-9]*; do directory "$name"; file "$name/online"; done
	file /sys/devices/system/memory/block_size_bytes
	for name in /sys/devices/system/memory/memory[0-9]*; do
		directory "$name"
		file "$name/state"
		file "$name/removable"
	done

	for name in self/mountinfo diskstats net/route net/ipv6_route; do
		file "/proc/$name"
	done
	link /etc/os-release
	if [ ! -L /etc/os-release ]; then file /etc/os-release; fi
	file /usr/lib/os-release

	if [ -n "$answers" ]; then
		for name in "$answers"/*; do file "answers/${name##*/}" "$name"; done
	fi
}

collect | awk '
BEGIN {
	FS = "\t"
	digits = "0123456789abcdef"
	for (i = 32; i < 127; i++) char[hex(i)] = sprintf("%c", i)
	char["09"] = "\t"
	char["0a"] = "\n"
	for (h in char) code[char[h]] = h
}

function hex(n) { return substr(digits, int(n / 16) + 1, 1) substr(digits, n % 16 + 1, 1) }
function byte(h, at) { return 16 * (index(digits, substr(h, at, 1)) - 1) + index(digits, substr(h, at + 1, 1)) - 1 }

# decode returns the text that h stands for; what is no text becomes a blank.
function decode(h,   s, i, c) {
	s = ""
	for (i = 1; i < length(h); i += 2) {
		c = substr(h, i, 2)
		s = s (c in char ? char[c] : " ")
	}
	return s
}

function encode(s,   h, i) {
	h = ""
	for (i = 1; i <= length(s); i++) h = h code[substr(s, i, 1)]
	return h
}

# is_text tells whether the file can be shown as it is.
function is_text(h,   i) {
	if (h == "") return 1
	if (substr(h, length(h) - 1) != "0a") return 0
	for (i = 1; i < length(h); i += 2) if (!(substr(h, i, 2) in char)) return 0
	return substr(decode(h), 1, 3) != "-- " && index(decode(h), "\n-- ") == 0
}

# padded returns the number n, with as many characters as s has.
function padded(s, n,   fill, width) {
	fill = s ~ /^[0-9a-f]+$/ ? "0" : "X"
	width = length(s)
	s = n ""
	while (length(s) < width) s = fill s
	return substr(s, length(s) - width + 1)
}

# learn takes note of a serial number. Udev has underscores for blanks.
function learn(s) {
	gsub(/^[ \t\n]+|[ \t\n]+$/, "", s)
	# The short ones identify nothing, and may be words that are found everywhere.
	if (length(s) < 6 || s in stand_in) return
	stand_in[s] = padded(s, ++serials)
	secret[serials] = s
	gsub(/[ \t]+/, "_", s)
	if (!(s in stand_in)) {
		stand_in[s] = padded(s, serials)
		secret[++serials] = s
	}
}

# designators takes note of what page 0x83 of a SCSI disk has: in h, each with
# four bytes before it of which the first one tells binary from text, and the
# last one the length.
function designators(h,   at, size) {
	for (at = 9; at + 7 <= length(h); at += 8 + 2 * size) {
		size = byte(h, at + 6)
		if (byte(h, at) % 16 == 1) learn(substr(h, at + 8, 2 * size))
	}
}

function replace(s, from, to,   out, i) {
	out = ""
	while (i = index(s, from)) {
		out = out substr(s, 1, i - 1) to
		s = substr(s, i + length(from))
	}
	return out s
}

# word is replace, but not in the middle of another word.
function word(s, from, to,   out, i, before, after) {
	out = ""
	while (i = index(s, from)) {
		before = i == 1 ? substr(out, length(out)) : substr(s, i - 1, 1)
		after = substr(s, i + length(from), 1)
		out = out substr(s, 1, i - 1) (before after ~ /[A-Za-z0-9]/ ? from : to)
		s = substr(s, i + length(from))
	}
	return out s
}

# each replaces what matches a pattern, always by the same.
function each(s, kind, pattern,   out, m) {
	out = ""
	while (match(s, pattern)) {
		m = substr(s, RSTART, RLENGTH)
		out = out substr(s, 1, RSTART - 1) substitute(kind, m)
		s = substr(s, RSTART + RLENGTH)
	}
	return out s
}

function substitute(kind, m,   n) {
	if (kind == "mac" && (m == "00:00:00:00:00:00" || m == "ff:ff:ff:ff:ff:ff")) return m
	if (kind == "eui" && substr(m, 23, 4) != "fffe") return m
	if (!((kind, m) in number)) number[kind, m] = ++count[kind]
	n = number[kind, m]
	if (kind == "mac") return "02:00:00:00:" hex(int(n / 256)) ":" hex(n % 256)
	if (kind == "eui") return substr(m, 1, 16) "00000000000000" hex(n % 256)
	return "00000000-0000-4000-8000-00000000" hex(int(n / 256)) hex(n % 256)
}

function conceal(s, path,   i) {
	for (i = 1; i <= serials; i++) s = replace(s, secret[i], stand_in[secret[i]])
	s = each(s, "uuid", x(8) "-" x(4) "-" x(4) "-" x(4) "-" x(12))
	s = each(s, "mac", x(2) ":" x(2) ":" x(2) ":" x(2) ":" x(2) ":" x(2))
	s = each(s, "eui", x(32))
	if (path !~ /os-?(release|info)$/) {
		s = word(s, host, "guest")
		for (i = 1; i <= users; i++) s = word(s, user[i], "user" i)
	}
	return s
}

# x is a pattern for n hexadecimal digits; not every awk knows {n}.
function x(n) { return n ? "[0-9a-fA-F]" x(n - 1) : "" }

# known_to_udev keeps what the agent asks for, and learns the serial numbers.
function known_to_udev(s,   lines, n, i, kept, short, whole) {
	n = split(s, lines, "\n")
	for (i = 1; i <= n; i++) {
		if (lines[i] ~ /^E:ID_SERIAL_SHORT=/) learn(short = substr(lines[i], 19))
		if (lines[i] ~ /^E:ID_SERIAL=/) whole = substr(lines[i], 13)
		if (lines[i] ~ /^(E:(ID_SERIAL|DM_NAME)=|[IGV]:)/) kept = kept lines[i] "\n"
	}
	if (short == "") learn(whole)
	return kept
}

$1 == "N" { host = $2; next }
$1 == "U" { user[++users] = $2; next }
$1 == "F" { gsub(/ /, "", $3) }
{
	kind[++entries] = $1
	path[entries] = $2
	data[entries] = $3
}
$1 == "F" && $2 ~ /\/serial$/ { learn(decode($3)) }
$1 == "F" && $2 ~ /vpd_pg80$/ { learn(decode(substr($3, 9))) }
$1 == "F" && $2 ~ /vpd_pg83$/ { designators($3) }
$1 == "F" && $2 ~ /^\/run\/udev\// { data[entries] = encode(known_to_udev(decode($3))) }

END {
	# The longest first: one may be a part of another.
	for (i = 2; i <= serials; i++)
		for (j = i; j > 1 && length(secret[j]) > length(secret[j - 1]); j--) {
			s = secret[j]; secret[j] = secret[j - 1]; secret[j - 1] = s
		}
	for (i = 1; i <= entries; i++) {
		name = conceal(path[i], path[i])
		if (kind[i] == "D") print "-- " name "/ --"
		else if (kind[i] == "L") print "-- " name " -> " conceal(data[i], path[i]) " --"
		else if (is_text(data[i])) printf "-- %s --\n%s", name, conceal(decode(data[i]), path[i])
		else {
			print "-- " name " (hex) --"
			h = data[i]
			for (j = 1; j <= serials; j++) {
				h = replace(h, encode(secret[j]), encode(stand_in[secret[j]]))
				if (secret[j] ~ /^[0-9a-f]+$/) h = replace(h, secret[j], stand_in[secret[j]])
			}
			for (j = 1; j <= length(h); j += 64) print substr(h, j, 64)
		}
	}
}'
