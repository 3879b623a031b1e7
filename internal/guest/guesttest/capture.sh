#!/bin/sh
# capture.sh - write what the agent reads of a Linux guest as one text file, in
# which nobody can recognise the guest.
#
#	capture.sh [ANSWERS] >NAME.txt
#
# What is captured: block devices and what they are attached to, processors and
# memory blocks in /sys; udev's database; mounts, counters and routes in /proc;
# os-release; how the hardware clock goes. ANSWERS is a directory of replies of an
# agent in the same guest, each in a file with the name of its command; they go below
# answers/.
#
# Replaced are, wherever they appear and always by the same stand-ins:
#
#	- serial numbers of six characters or more, world wide names, UUIDs, MAC
#	  addresses (also in IPv6 addresses that contain one)
#	- the host's name with its domain, the names of its users in /etc/passwd, and
#	  their homes
#	- mount points in these homes, in /home, and where removable media are
#	- of mounts that do not lie on a block device of the guest: the source, unless
#	  it is one of the usual words as tmpfs, and then the mount point, too, unless
#	  it is in /dev, /proc, /sys or /run; of their options only ro and rw are kept
#	- the directories and subvolumes that are mounted instead of a whole file system
#
# What stays, and a person has to look at before the result is given away: names of
# volumes, of other mount points and of network interfaces; other IP addresses; words
# in which the name of the host or of a user is only a part; users who are not in
# /etc/passwd, where they appear in ANSWERS.
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
	while IFS=: read -r user _ id _ _ home _; do
		if [ "$id" -ge 1000 ] && [ "$id" -lt 60000 ]; then printf 'U\t%s\t%s\n' "$user" "$home"; fi
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
	file /etc/adjtime

	if [ -n "$answers" ]; then
		for name in "$answers"/*; do file "answers/${name##*/}" "$name"; done
	fi
}

collect | awk '
BEGIN {
	FS = "\t"
	digits = "0123456789abcdef"
	for (i = 32; i < 256; i++) if (i != 127) char[hex(i)] = sprintf("%c", i)
	char["09"] = "\t"
	char["0a"] = "\n"
	for (h in char) code[char[h]] = h
	# Where homes and removable media are.
	homes = "(/home|/export/home|/var/home|/Users|/media|/run/media)/"
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

# is_text tells whether h stands for text, on which decode loses nothing.
function is_text(h,   i) {
	for (i = 1; i < length(h); i += 2) if (!(substr(h, i, 2) in char)) return 0
	return 1
}

# is_shown tells whether the text can be shown as it is.
function is_shown(s) {
	return s == "" || s ~ /\n$/ && substr(s, 1, 3) != "-- " && !index(s, "\n-- ")
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
	if (kind == "home" && m ~ /\/(mount|user)[0-9]+["\/]/) return m
	if (!((kind, m) in number)) number[kind, m] = ++count[kind]
	n = number[kind, m]
	if (kind == "mac") return "02:00:00:00:" hex(int(n / 256)) ":" hex(n % 256)
	if (kind == "eui") return substr(m, 1, 16) "00000000000000" hex(n % 256)
	if (kind == "source") return "source" n
	if (kind == "directory") return "/dir" n
	if (kind == "home") return "\"/home/other" n "\""
	return "00000000-0000-4000-8000-00000000" hex(int(n / 256)) hex(n % 256)
}

# at is replace for a path that is the whole of another or its beginning.
function at(s, from, to,   out, i, before, after) {
	out = ""
	while (i = index(s, from)) {
		before = i == 1 ? substr(out, length(out)) : substr(s, i - 1, 1)
		after = substr(s, i + length(from), 1)
		out = out substr(s, 1, i - 1) (before !~ /^[ \t\n"=,]?$/ || after !~ /^[ \t\n",\/]?$/ ? from : to)
		s = substr(s, i + length(from))
	}
	return out s
}

function conceal(s, path,   i) {
	for (i = 1; i <= points; i++) s = at(s, point[i], place[point[i]])
	# JSON may write a name differently.
	if (path ~ /^answers\//) s = each(s, "home", "\"" homes "[^\"]*\"")
	for (i = 1; i <= serials; i++) s = replace(s, secret[i], stand_in[secret[i]])
	s = each(s, "uuid", x(8) "-" x(4) "-" x(4) "-" x(4) "-" x(12))
	s = each(s, "mac", x(2) ":" x(2) ":" x(2) ":" x(2) ":" x(2) ":" x(2))
	s = each(s, "eui", x(32))
	if (path !~ /os-?(release|info)$/) {
		s = word(s, host, "guest")
		gsub(/guest(\.[A-Za-z0-9-]+)+/, "guest", s) # its domain
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

# foreign tells whether a mount does not lie on a block device. A btrfs has a number
# like those that do not.
function foreign(device, type) {
	return device ~ /^0:/ && type != "btrfs" ||
		type ~ /^(nfs|cifs|smb|ncpfs|afs|ceph|9p|virtiofs|lustre|glusterfs|gpfs|fuse\.)/
}

function usual(source, type) {
	return source == type || source ~ /^(none|rootfs|udev|dev|pts|proc|sys|run|shm|tmp|tmpfs|cgroup|systemd-1)$/
}

# move takes note of a mount point that gets another name, in a directory.
function move(from, dir,   to) {
	if (from in place) return
	to = dir "/mount" (++moved)
	place[from] = to
	point[++points] = from
	gsub(/\\040/, " ", from)
	if (!(from in place)) {
		place[from] = to
		point[++points] = from
	}
}

# mounts returns the lines of mountinfo without what the sources and options of mounts
# tell, and takes note of the mount points.
function mounts(s,   lines, n, i, f, m, dash, j, kept) {
	n = split(s, lines, "\n")
	for (i = 1; i <= n; i++) {
		m = split(lines[i], f, "[ ]")
		for (dash = 7; dash < m && f[dash] != "-"; dash++);
		if (m != dash + 3) continue
		if (f[5] ~ "^" homes && match(f[5], "^" homes)) move(f[5], substr(f[5], 1, RLENGTH - 1))
		for (j = 1; j <= users; j++)
			if (home[j] ~ /^\/./ && index(f[5] "/", home[j] "/") == 1) move(f[5], "/home")
		if (foreign(f[3], f[dash + 1])) {
			f[m] = substr(f[m], 1, 2)
			if (!usual(f[m - 1], f[dash + 1])) {
				f[m - 1] = substitute("source", f[m - 1])
				if (f[5] !~ /^\/(dev|proc|sys|run)?(\/|$)/) move(f[5], "/mnt")
			}
		}
		if (f[4] != "/") f[4] = substitute("directory", f[4])
		if (match(f[m], /subvol=\/[^,]+/))
			f[m] = substr(f[m], 1, RSTART + 6) substitute("directory", substr(f[m], RSTART + 7, RLENGTH - 7)) substr(f[m], RSTART + RLENGTH)
		for (j = 1; j <= m; j++) kept = kept f[j] (j < m ? " " : "\n")
	}
	return kept
}

# longest_first sorts: one may be a part of another.
function longest_first(list, n,   i, j, s) {
	for (i = 2; i <= n; i++)
		for (j = i; j > 1 && length(list[j]) > length(list[j - 1]); j--) {
			s = list[j]; list[j] = list[j - 1]; list[j - 1] = s
		}
}

$1 == "N" { host = $2; sub(/\..*/, "", host); next }
$1 == "U" { user[++users] = $2; home[users] = $3; next }
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
$1 == "F" && $2 ~ /\/mountinfo$/ { data[entries] = encode(mounts(decode($3))) }

END {
	for (i = 1; i <= users; i++)
		# A directory of the root may be the home of a service, and everybody else in it.
		if (home[i] ~ /^\/[^\/]+\/./ && !(home[i] in place)) {
			place[home[i]] = "/home/user" i
			point[++points] = home[i]
		}
	longest_first(secret, serials)
	longest_first(point, points)
	for (i = 1; i <= entries; i++) {
		name = conceal(path[i], path[i])
		if (kind[i] == "D") print "-- " name "/ --"
		else if (kind[i] == "L") print "-- " name " -> " conceal(data[i], path[i]) " --"
		else {
			h = data[i]
			if (is_text(h)) {
				text = conceal(decode(h), path[i])
				if (is_shown(text)) {
					printf "-- %s --\n%s", name, text
					continue
				}
				h = encode(text)
			} else for (j = 1; j <= serials; j++) {
				h = replace(h, encode(secret[j]), encode(stand_in[secret[j]]))
				if (secret[j] ~ /^[0-9a-f]+$/) h = replace(h, secret[j], stand_in[secret[j]])
			}
			print "-- " name " (hex) --"
			for (j = 1; j <= length(h); j += 64) print substr(h, j, 64)
		}
	}
}'
