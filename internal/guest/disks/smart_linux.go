package disks

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nvmeCommand is struct nvme_admin_cmd of <linux/nvme_ioctl.h>.
type nvmeCommand struct {
	opcode, flags              uint8
	_                          uint16
	namespace, cdw2, cdw3      uint32
	metadata, data             uint64
	metadataLen, dataLen       uint32
	cdw10, cdw11, cdw12        uint32
	cdw13, cdw14, cdw15        uint32
	timeoutMilliseconds, reply uint32
}

const (
	nvmeAdminCommand = 0xc0484e41 // NVME_IOCTL_ADMIN_CMD
	getLogPage       = 0x02
	allNamespaces    = 0xffffffff
	healthPage       = 0x02
	retainEvent      = 1 << 15 // asking must not clear an event that others wait for
)

// readHealthLog asks the controller of the namespace with a device node.
func readHealthLog(node string) (*healthLog, error) {
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	page := new(healthLog)
	var pin runtime.Pinner
	pin.Pin(page)
	defer pin.Unpin()
	c := nvmeCommand{
		opcode:    getLogPage,
		namespace: allNamespaces,
		data:      uint64(uintptr(unsafe.Pointer(page))),
		dataLen:   uint32(len(page)),
		// The length again, in words and less one.
		cdw10: healthPage | retainEvent | uint32(len(page)/4-1)<<16,
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nvmeAdminCommand, uintptr(unsafe.Pointer(&c)))
	switch {
	case errno != 0:
		return nil, errno
	case status != 0: // the controller's, not the kernel's
		return nil, unix.EIO
	}
	return page, nil
}
