#!/bin/sh
# build.sh - make a Debian root file system for guests of package test/vm.
#
#	build.sh KERNEL NEW
#
# KERNEL is an unpacked package of a Debian kernel. NEW, a directory that is not
# there yet, will have:
#
#	root.img  the root file system, ext4, with the modules of the kernel
#	vmlinux   the kernel, decompressed, which saves an emulated processor seconds
#	modules/  what is needed to mount the root
#	recipe    a copy of this script: one that differs has to be run again
#
# This must be run as root, since debootstrap makes device nodes and changes its
# root. It does so among mounts and processes of its own, which end with it.

set -eu
umask 022

if [ "${1-}" = --inside ]; then
	shift
else
	exec unshare --mount --pid --fork --kill-child --mount-proc -- "$0" --inside "$@"
fi
kernel=$1 new=$2
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}

# What there is besides Debian's minimal system and the agent: what disks and file
# systems need, users that are in no file of /etc, and servers that have hooks for a
# freeze.
packages='systemd-sysv udev dbus kmod libpam-systemd util-linux-extra tzdata iproute2
	fdisk lvm2 cryptsetup-bin mdadm e2fsprogs xfsprogs btrfs-progs dosfstools libnss-extrausers
	mariadb-server postgresql redis-server'
size=4G # of the file system; the image is sparse

mkdir "$new"
root=$new/root

debootstrap --variant=minbase trixie "$root" "$mirror"
cat >"$root/etc/apt/sources.list" <<-END
	deb $mirror trixie main
	deb $mirror trixie-backports main
	deb $security trixie-security main
END
cat >"$root/etc/dpkg/dpkg.cfg.d/vm" <<-END
	path-exclude=/usr/share/doc/*
	path-exclude=/usr/share/man/*
	path-exclude=/usr/share/locale/*
	force-unsafe-io
END
# Nothing is to be started in here.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"

inside() { env DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" "$@"; }
inside apt-get -q -o Acquire::Retries=3 update
# shellcheck disable=SC2086 # a list of names
inside apt-get -q -y -o Acquire::Retries=3 install --no-install-recommends $packages
inside apt-get -q -y -o Acquire::Retries=3 install --no-install-recommends -t trixie-backports qemu-guest-agent
# A test lays its own agent over this name; under the other one QEMU's stays.
cp "$root/usr/sbin/qemu-ga" "$root/usr/sbin/qemu-ga-c"

# The kernel's header has the size of the part that comes first, in sectors, and
# where behind it what it unpacks begins, and how long that is.
vmlinuz=$(echo "$kernel"/boot/vmlinuz-*)
number() { od -A n -t "u$2" -j "$1" -N "$2" "$vmlinuz" | tr -d ' '; }
start=$((($(number $((0x1f1)) 1) + 1) * 512 + $(number $((0x248)) 4)))
tail -c "+$((start + 1))" "$vmlinuz" | head -c "$(number $((0x24c)) 4)" | xz -dc --single-stream >"$new/vmlinux"

# Drivers of what QEMU does not have are left out: most of the modules, and some
# of the time that udev takes.
release=${vmlinuz##*/vmlinuz-}
from=$kernel/lib/modules/$release
into=$root/usr/lib/modules/$release/kernel
mkdir -p "$into"
(
	cd "$from/kernel"
	cp -a --parents arch block crypto fs lib mm net drivers/acpi drivers/ata drivers/block drivers/cdrom \
		drivers/char drivers/firmware drivers/md drivers/mmc drivers/nvme drivers/scsi drivers/virtio \
		drivers/net/bonding drivers/net/dummy.ko drivers/net/net_failover.ko drivers/net/macvlan.ko \
		drivers/net/tun.ko drivers/net/veth.ko drivers/net/virtio_net.ko drivers/net/vxlan \
		drivers/usb/common drivers/usb/core drivers/usb/host drivers/usb/storage "$into"
)
rm -r "$into/arch/x86/kvm" "$into/drivers/block/floppy.ko"
cp "$from"/modules.builtin* "$from/modules.order" "$into/.."
inside depmod "$release"
mkdir "$new/modules"
inside modprobe -S "$release" -D -a virtio_pci virtio_blk ext4 crc32c_generic |
	while read -r _ path; do cp "$root/$path" "$new/modules/"; done

# An emulated processor should do nothing that no test asks for. What is masked
# would look for things that no guest has, or go off at some hour.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer xfs_scrub_all.timer mdcheck_start.timer mdcheck_continue.timer \
	mdmonitor-oneshot.timer getty.target getty-static.service \
	ldconfig.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
	systemd-update-done.service systemd-firstboot.service systemd-sysusers.service \
	systemd-pcrmachine.service systemd-pcrphase.service systemd-pcrphase-sysinit.service \
	systemd-tpm2-setup.service systemd-tpm2-setup-early.service systemd-pstore.service \
	systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-hibernate-clear.service \
	modprobe@drm.service sys-fs-fuse-connections.mount lvm2-monitor.service \
	sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# systemd 257.13, when it shuts down, at times forgets that swap.target has nothing left
# to wait for once /tmp is unmounted, and waits for ever. There is no swap.
ln -s /dev/null "$root/etc/systemd/system/swap.target"
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/vm.conf"

# The servers are for a test to start.
inside systemctl disable mariadb.service postgresql.service redis-server.service

# A user, and her second group, whom only NSS knows.
sed -i -E 's/^(passwd|group|shadow):.*/& extrausers/' "$root/etc/nsswitch.conf"
echo 'nadia:x:4001:4001:Nadia:/srv/nadia:/bin/sh' >"$root/var/lib/extrausers/passwd"
printf 'nadia:x:4001:\nstaff2:x:4002:nadia\n' >"$root/var/lib/extrausers/group"
printf 'nadia:!:20000:0:99999:7:::\n' >"$root/var/lib/extrausers/shadow"
install -d -o 4001 -g 4001 "$root/srv/nadia"

echo debian >"$root/etc/hostname"
printf '127.0.0.1 localhost debian\n::1 localhost\n' >"$root/etc/hosts"
# What a first boot would make is made here, so that no boot is one.
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
: >"$root/etc/fstab"

umount "$root/proc"
rm -rf "$root/usr/sbin/policy-rc.d" "$root/etc/resolv.conf" "$root"/var/cache/apt/* \
	"$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/usr/share/doc/* "$root"/usr/share/locale/*

truncate -s "$size" "$new/root.img"
mkfs.ext4 -q -L root -d "$root" "$new/root.img"
rm -rf "$root"
cp "$0" "$new/recipe"
