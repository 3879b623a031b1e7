# Gives the guest disks, file systems, networks and users that are worth telling
# of. It is run by sh in the guest, once.
set -eux
udevadm settle --timeout=300

cd /dev/disk/by-id
virtio=$(readlink -f virtio-VIRTIO-1)
btrfs=$(readlink -f virtio-VIRTIO-2)
scsi=$(readlink -f scsi-0QEMU_QEMU_HARDDISK_SCSI-1)
lvm=$(readlink -f scsi-0QEMU_QEMU_HARDDISK_SCSI-2)
sata=$(readlink -f ata-QEMU_HARDDISK_SATA-1)
raid0=$(readlink -f ata-QEMU_HARDDISK_SATA-2)
raid1=$(readlink -f ata-QEMU_HARDDISK_IDE-1)
nvme=$(readlink -f nvme-QEMU_NVMe_Ctrl_NVME-1)
usb=$(readlink -f usb-QEMU_QEMU_HARDDISK_USB-1-0:0)

mkdir /mnt/ext4 "/mnt/x f s" /mnt/vfat /mnt/btrfs /mnt/raid /mnt/lvm /mnt/luks /mnt/loop \
	/mnt/bind /mnt/overlay /mnt/tmp

# Two disks with three partitions, of which the last of the first is swap.
partitions() {
	printf 'size=100M\nsize=100M\nsize=50M,type=82\n' >/run/table
	sfdisk -q "$virtio" </run/table
	sfdisk -q "$sata" </run/table
	udevadm settle --timeout=300
	mkfs.ext4 -q "${virtio}1"
	mount "${virtio}1" /mnt/ext4
	mkswap -q "${virtio}3"
	swapon "${virtio}3"
	mkfs.vfat "${sata}1"
	mount "${sata}1" /mnt/vfat

	truncate -s 16M /mnt/ext4/image
	mkfs.ext4 -q /mnt/ext4/image
	mount -o loop /mnt/ext4/image /mnt/loop
	mkdir /mnt/ext4/dir
	mount --bind /mnt/ext4/dir /mnt/bind
	mount -t tmpfs -o size=1m tmp /mnt/tmp
}

whole() {
	mkfs.xfs -q "$scsi"
	mount "$scsi" "/mnt/x f s"
	mkfs.btrfs -q "$usb" "$btrfs"
	mount "$usb" /mnt/btrfs
}

mirror() {
	mdadm -q --create /dev/md0 --level=1 --raid-devices=2 --metadata=1.2 --assume-clean --run "$raid0" "$raid1"
	mkfs.ext4 -q /dev/md0
	mount /dev/md0 /mnt/raid
}

mapped() {
	pvcreate -q "$lvm"
	vgcreate -q group "$lvm"
	lvcreate -q -y -n logical -L 100M group
	mkfs.ext4 -q /dev/group/logical
	mount /dev/group/logical /mnt/lvm

	printf secret | cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$nvme" -
	printf secret | cryptsetup open "$nvme" crypt -
	mkfs.ext4 -q /dev/mapper/crypt
	mount /dev/mapper/crypt /mnt/luks
}

nic() { grep -l "^52:54:00:00:00:0$1" /sys/class/net/*/address | cut -d/ -f5; }

networks() {
	one=$(nic 1)
	two=$(nic 2)
	ip netns add elsewhere
	ip -batch - <<-END
		link set $one up
		link set $two up
		address add 192.0.2.1/24 dev $one
		address add 192.0.2.2/24 dev $one
		address add 192.0.2.3/32 dev $one label $one:1
		address add 2001:db8::1/64 dev $one nodad
		link add link $one name vlan100 type vlan id 100
		link set vlan100 up
		address add 203.0.113.1/28 dev vlan100
		link add br0 type bridge
		link set $two master br0
		link set br0 up
		address add 198.51.100.1/24 dev br0
		link add veth0 type veth peer name veth1
		link set veth0 up
		address add 10.0.0.1 peer 10.0.0.2/32 dev veth0
		link add tunnel0 type vxlan id 7 local 192.0.2.1 remote 192.0.2.9 dstport 4789
		link set tunnel0 up
		link add unused0 type dummy
		link add gre1 type gre local 192.0.2.1 remote 192.0.2.77
		link set gre1 up
		address add 10.9.0.1/30 dev gre1
		link add ipip1 type ipip local 192.0.2.1 remote 192.0.2.78
		link add sit1 type sit local 192.0.2.1 remote 192.0.2.79
		link set sit1 up
		address add 2001:db8:5::1/64 dev sit1
		link add six1 type ip6tnl local 2001:db8::1 remote 2001:db8::99
		link set six1 up
		link add gresix1 type ip6gre local 2001:db8::1 remote 2001:db8::98
		link add bond1 type bond mode active-backup
		link add port1 type dummy
		link set port1 master bond1
		link set bond1 up
		address add 10.3.0.1/24 dev bond1
		address add fd00:3::1/64 dev bond1 nodad
		link add macvlan0 link $one type macvlan
		link set macvlan0 up
		address add 192.0.2.4/24 dev macvlan0
		tuntap add tun0 mode tun
		link set tun0 up
		address add 10.8.0.1 peer 10.8.0.2/32 dev tun0
		address add fd00:8::1 peer fd00:8::2/128 dev tun0 nodad
		link add veth2 type veth peer name veth3 netns elsewhere
		link set veth2 up
		address add 10.4.0.1/24 dev veth2
		address add 2001:db8:4::1/64 dev veth2 nodad
		address add fe80::4/64 dev veth2 nodad
		address add fec0:4::1/64 dev veth2 nodad
		address add ::192.0.2.4/96 dev veth2 nodad
		address add ::ffff:192.0.2.4/96 dev veth2 nodad
		address add 2002:c000:204::1/16 dev veth2 nodad
		route add default via 192.0.2.254 metric 100
		route add 10.1.0.0/16 via 10.0.0.2 mtu 1400 window 10000
		route add blackhole 10.2.0.0/16
		route add default via fe80::1 dev $one metric 50
		route add unreachable 2001:db8:1::/48
		route add 2001:db8:6::/48 via 2001:db8:4::2 metric 4000000000
	END
	# Interfaces that are none of the agents' business.
	ip -n elsewhere -batch - <<-END
		link set lo up
		link set veth3 up
		address add 10.4.0.2/24 dev veth3
		address add 2001:db8:4::2/64 dev veth3 nodad
	END
}

users() {
	useradd -m -s /bin/bash alice
	useradd -m -s /bin/sh bob
	useradd -M -d /no/such/home homeless
	useradd -M -d /mnt/readonly/home fixed # see below
}

parts=
for part in partitions whole mirror mapped networks users; do
	$part &
	parts="$parts $!"
done
for part in $parts; do
	wait "$part"
done

mkdir /mnt/lvm/upper /mnt/lvm/work
mount -t overlay -o lowerdir=/mnt/ext4/dir,upperdir=/mnt/lvm/upper,workdir=/mnt/lvm/work overlay /mnt/overlay

# A home that cannot be written to.
mkdir /mnt/readonly
mount -t tmpfs -o size=1m readonly /mnt/readonly
mkdir -p /mnt/readonly/home/.ssh
echo ssh-ed25519 AAAA fixed >/mnt/readonly/home/.ssh/authorized_keys
chown -R fixed: /mnt/readonly/home
mount -o remount,ro /mnt/readonly

# Whatever has been started by all this comes to an end.
udevadm settle --timeout=300
