#!/bin/sh
# The first process of a guest with a root file system of its own: finds the
# disk, adds the files of this guest to it, and hands over to its init.

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

while read -r module; do
	insmod "$module" || echo "init: $module was not loaded"
done </etc/vm/modules

# A serial number comes without a newline.
root=
until [ -n "$root" ]; do
	sleep 0.02
	for disk in /sys/block/vd*; do
		[ "$(cat "$disk/serial")" = root ] && root=/dev/${disk##*/}
	done
done 2>/dev/null

mkdir /mnt
mount -t ext4 "$root" /mnt || exit 1
# cp would write into what a link leads to, and balk at one in the place of another.
(cd /guest && find . ! -type d -print0) | (cd /mnt && xargs -0 rm -f)
cp -a /guest/. /mnt/ || exit 1
for dir in dev proc sys; do
	mount -o move "/$dir" "/mnt/$dir"
done
exec switch_root /mnt /sbin/init
