#!/bin/sh
# The first process of a test guest. What differs from guest to guest is in
# /etc/vm: the kernel modules in the order to load them, the names of the
# virtio ports to wait for, commands to run before the agents, and a script for
# each agent.

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mkdir /dev/pts /dev/shm /dev/virtio-ports /run/vm
mount -t devpts pts /dev/pts
hostname -F /etc/hostname
ifconfig lo up

while read -r module; do
	insmod "$module" || echo "init: $module was not loaded"
done </etc/vm/modules

# The device node of a port appears some tens of milliseconds after its bus,
# and there is no udev to link it to its name.
while read -r port; do
	until [ -e "/dev/virtio-ports/$port" ]; do
		for dir in /sys/class/virtio-ports/*; do
			read -r name 2>/dev/null <"$dir/name" && [ -e "/dev/${dir##*/}" ] &&
				ln -sf "../${dir##*/}" "/dev/virtio-ports/$name"
		done
		[ -e "/dev/virtio-ports/$port" ] || sleep 0.02
	done
done </etc/vm/ports

. /etc/vm/start

for agent in /etc/vm/agents/*; do
	while :; do
		"$agent" &
		echo $! >"/run/vm/${agent##*/}.pid"
		wait $!
		echo "init: ${agent##*/} ended with status $?"
		sleep 0.05
	done &
done

echo GUEST-READY

# A shell waits for every child, so orphans are taken care of too. There are
# agents' loops to wait for as long as the guest lives; the sleep is for a
# guest without any.
while :; do
	wait
	sleep 1
done
