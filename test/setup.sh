#!/bin/sh
# setup.sh - fetch what the demo, the benchmarks and the tests need.
#
#	setup.sh          for the demo and the benchmarks
#	setup.sh tests    for the tests, too
#
# Each of these is left alone when it is there already:
#
#   - QEMU and the C compiler (for the race detector), by apt, and a Go where there
#     is none, from the module proxy;
#   - what a guest is made of: a Debian cloud kernel with its modules, a static
#     busybox;
#   - two builds of QEMU's own agent to compare with;
#   - for the tests, libvirt and the programs that make and check file systems, by
#     apt; the logical volume manager for guests; and a Debian system for guests,
#     which only root can build: without it, tests that need it are skipped.
#
# What is for guests comes in Debian packages, too, but on this machine they are
# only unpacked, never installed: a kernel package would touch the boot loader, and
# the agent's package would start a service. They come through an apt state of our
# own, so they are the same on every Debian release, and neither the machine's
# package lists nor its sources change.
#
# Everything is kept in $BELLHOP_CACHE (default ~/.cache/bellhop):
#
#   kernel/vmlinuz  kernel/modules/   Debian 12's cloud kernel
#   busybox                           static
#   lvm/                              lvm, dmsetup and lib/, the loader among them
#   c-agent-7/  c-agent-11/           qemu-ga and lib/, its loader among them
#   qemu-ga-c7  qemu-ga-c11           scripts that run these agents
#   debian/                           see vm/debian/build.sh
#   go/                               if the machine has no Go, or a very old one
#
# DEBIAN_MIRROR, DEBIAN_SECURITY_MIRROR and GOPROXY choose other places to load
# from.

set -eu
umask 022

cache=${BELLHOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bellhop}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}

# The Go to fetch, and the SHA-256 sum of its archive.
go_version=1.26.8
go_sum=30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7

say() { echo "setup: $*"; }

die() {
	echo "setup: $*" >&2
	exit 1
}

# retry COMMAND... runs it up to four times; a mirror may have a bad moment.
retry() {
	for pause in 2 5 15; do
		"$@" && return
		say "failed, trying again in $pause s: $*" >&2
		sleep "$pause"
	done
	"$@"
}

have() { command -v "$1" >/dev/null 2>&1; }

# have_go tells whether there is a Go, and one that fetches a newer Go by
# itself if go.mod asks for it, as all do since 1.21.
have_go() { have go && go version | grep -Eq 'go1\.(2[1-9]|[3-9][0-9])'; }

# programs installs by apt what is missing on this machine.
programs() {
	missing=
	have qemu-system-x86_64 || missing="$missing qemu-system-x86"
	have gcc || missing="$missing gcc libc6-dev"
	[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
		missing="$missing debian-archive-keyring"
	if [ "$purpose" = tests ]; then
		{ have virsh && have libvirtd; } ||
			missing="$missing libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu"
		have mkfs.ext4 || missing="$missing e2fsprogs"
		have mkfs.xfs || missing="$missing xfsprogs"
		have mkfs.btrfs || missing="$missing btrfs-progs"
		if [ "$(id -u)" = 0 ]; then # for build.sh
			have debootstrap || missing="$missing debootstrap"
			have xz || missing="$missing xz-utils"
		fi
	fi
	have_go || have curl || missing="$missing curl ca-certificates"
	[ -z "$missing" ] && return

	have apt-get || die "please install by your package manager:$missing"
	[ "$(id -u)" = 0 ] ||
		die "please run as root: apt-get install --no-install-recommends$missing"
	say "installing$missing"
	export DEBIAN_FRONTEND=noninteractive
	retry apt-get -qq -o Acquire::Retries=3 update
	# shellcheck disable=SC2086 # a list of names
	retry apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
		install --no-install-recommends $missing >"$cache/apt-install.log" 2>&1 ||
		die "apt-get failed, see $cache/apt-install.log"
}

# apt SUITE ARGUMENTS... runs apt-get or apt-cache on an apt state of our own
# that knows one Debian suite. The sandbox user is turned off because it could
# not write into a cache below somebody's home.
apt() {
	suite=$1 tool=$2
	shift 2
	"$tool" -qq \
		-o Dir::State="$work/$suite/state" -o Dir::State::status="$work/$suite/status" \
		-o Dir::Cache="$work/$suite/cache" \
		-o Dir::Etc::SourceList="$work/$suite/sources.list" \
		-o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
		-o APT::Architecture=amd64 -o APT::Architectures=amd64 \
		-o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# index SUITE loads the package lists of a suite, once a run.
index() {
	[ -e "$work/$1/sources.list" ] && return
	have apt-get && have dpkg-deb ||
		die "apt-get and dpkg-deb are needed to fetch Debian packages into $cache"
	say "reading the package lists of Debian $1"
	mkdir -p "$work/$1/state/lists/partial" "$work/$1/cache/archives/partial"
	: >"$work/$1/status"
	key='signed-by=/usr/share/keyrings/debian-archive-keyring.gpg'
	cat >"$work/$1/sources.list.new" <<-END
		deb [$key] $mirror $1 main
		deb [$key] $mirror $1-backports main
		deb [$key] $security $1-security main
	END
	mv "$work/$1/sources.list.new" "$work/$1/sources.list"
	retry apt "$1" apt-get update -o APT::Update::Error-Mode=any
}

# fetch SUITE DIRECTORY PACKAGE... unpacks packages into DIRECTORY.
fetch() {
	suite=$1 into=$2
	shift 2
	mkdir -p "$into" "$work/deb"
	(cd "$work/deb" && retry apt "$suite" apt-get download "$@")
	for deb in "$work"/deb/*.deb; do
		dpkg-deb -x "$deb" "$into"
	done
	rm -r "$work/deb"
}

# libraries FROM INTO copies the shared libraries of unpacked packages.
libraries() {
	find "$1" -path '*/x86_64-linux-gnu/*' -name '*.so*' ! -path '*/gconv/*' -exec cp -P {} "$2/" \;
}

kernel() {
	[ -e "$cache/kernel/vmlinuz" ] && return
	index bookworm
	# The meta package names the newest of the release's own series.
	image=$(apt bookworm apt-cache depends linux-image-cloud-amd64 |
		sed -n 's/.*Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p')
	[ -n "$image" ] || die "linux-image-cloud-amd64 names no kernel"
	say "fetching $image"
	fetch bookworm "$work/kernel" "$image"
	mkdir "$work/kernel.new"
	mv "$work"/kernel/boot/vmlinuz-* "$work/kernel.new/vmlinuz"
	mv "$work"/kernel/lib/modules/*/kernel "$work/kernel.new/modules"
	rm -rf "$cache/kernel"
	mv "$work/kernel.new" "$cache/kernel"
}

busybox() {
	[ -e "$cache/busybox" ] && return
	index bookworm
	say "fetching busybox-static"
	fetch bookworm "$work/busybox" busybox-static
	mv "$work/busybox/bin/busybox" "$cache/busybox"
}

lvm() {
	[ -e "$cache/lvm" ] && return
	index bookworm
	say "fetching lvm2"
	fetch bookworm "$work/lvm" lvm2 dmsetup libdevmapper1.02.1 libdevmapper-event1.02.1 \
		libc6 libaio1 libblkid1 libbsd0 libcap2 libedit2 libgcrypt20 libgpg-error0 liblz4-1 liblzma5 \
		libmd0 libpcre2-8-0 libselinux1 libsystemd0 libtinfo6 libudev1 libzstd1
	mkdir -p "$work/lvm.new/lib"
	mv "$work/lvm/sbin/lvm" "$work/lvm/sbin/dmsetup" "$work/lvm.new/"
	libraries "$work/lvm" "$work/lvm.new/lib"
	rm -r "$work/lvm"
	mv "$work/lvm.new" "$cache/lvm"
}

golang() {
	have_go && return
	say "fetching Go $go_version"
	proxy=${GOPROXY:-https://proxy.golang.org}
	name=golang.org/toolchain@v0.0.1-go$go_version.linux-amd64
	retry curl -fsSL -o "$work/go.zip" "${proxy%%[,|]*}/golang.org/toolchain/@v/${name#*@}.zip"
	echo "$go_sum  $work/go.zip" | sha256sum --check --quiet || die "the archive of Go is not what it should be"
	"$cache/busybox" unzip -q "$work/go.zip" -d "$work"
	chmod -R +x "$work/$name/bin" "$work/$name/pkg/tool"
	rm -rf "$cache/go"
	mv "$work/$name" "$cache/go"
}

# agent NUMBER SUITE PACKAGE... unpacks a build of QEMU's agent with the
# libraries it was built for, and writes a script that runs it with them.
agent() {
	number=$1 suite=$2
	shift 2
	[ -e "$cache/qemu-ga-c$number" ] && return
	index "$suite"
	say "fetching QEMU's agent $number from Debian $suite"
	fetch "$suite" "$work/agent" "$@"
	new=$work/c-agent-$number
	mkdir -p "$new/lib"
	mv "$work/agent/usr/sbin/qemu-ga" "$new/qemu-ga"
	libraries "$work/agent" "$new/lib"
	rm -r "$work/agent"
	rm -rf "$cache/c-agent-$number"
	mv "$new" "$cache/c-agent-$number"

	cat >"$work/wrapper" <<-END
		#!/bin/sh
		d='$cache/c-agent-$number'
		exec "\$d/lib/ld-linux-x86-64.so.2" --library-path "\$d/lib" --argv0 qemu-ga "\$d/qemu-ga" "\$@"
	END
	chmod 755 "$work/wrapper"
	version=$("$work/wrapper" --version) || die "the agent fetched from Debian $suite does not run"
	case $version in
	*" $number."*) ;;
	*) say "note: Debian $suite has moved on from $number to $version; tests may see differences" ;;
	esac
	mv "$work/wrapper" "$cache/qemu-ga-c$number"
}

# image builds a root file system for guests, unless the one that is there comes
# from the same recipe.
image() {
	recipe=$here/vm/debian/build.sh
	cmp -s "$recipe" "$cache/debian/recipe" && return
	if [ "$(id -u)" != 0 ]; then
		say "not building a Debian system for guests, and so skipping tests: that takes root"
		return
	fi
	index bookworm
	package=$(apt bookworm apt-cache depends linux-image-amd64 |
		sed -n 's/.*Depends: \(linux-image-[0-9].*-amd64\)$/\1/p')
	[ -n "$package" ] || die "linux-image-amd64 names no kernel"
	say "fetching $package"
	fetch bookworm "$work/generic" "$package"
	say "building a Debian system for guests, which takes minutes"
	DEBIAN_MIRROR=$mirror DEBIAN_SECURITY_MIRROR=$security \
		"$recipe" "$work/generic" "$work/image" >"$cache/image.log" 2>&1 ||
		die "building the image failed, see $cache/image.log"
	rm -rf "$cache/debian"
	mv "$work/image" "$cache/debian"
}

[ "$(uname -sm)" = 'Linux x86_64' ] || die "the guests need Linux on x86_64, this is $(uname -sm)"

case ${1-} in
'' | tests) purpose=${1-} ;;
*) die "usage: setup.sh [tests]" ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
PATH=$cache/go/bin:$PATH:/usr/local/go/bin:/usr/sbin:/sbin
exec 9>"$cache/lock"
flock 9
work=$cache/work
rm -rf "$work"
mkdir "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

programs
kernel
busybox
golang
agent 7 bookworm qemu-guest-agent \
	libc6 libglib2.0-0 libpcre2-8-0 liburing2 libudev1 libnuma1 libcap2
agent 11 trixie qemu-guest-agent/trixie-backports \
	libc6 libglib2.0-0t64 libpcre2-8-0 liburing2 libudev1 libnuma1 libcap2 libatomic1 libffi8 zlib1g
if [ "$purpose" = tests ]; then
	lvm
	image
fi
