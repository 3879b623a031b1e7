package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bellhop-vm/bellhop/internal/agent"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/qga"
)

const memoryDir = "/sys/devices/system/memory/"

// A System is where to look. Its zero value is the running system.
type System struct {
	Root root.Dir
}

// Commands returns the commands of this package.
func Commands(s System) []agent.Handler {
	return []agent.Handler{
		agent.Handle(qga.GetMemoryBlocks, s.blocks),
		agent.Handle(qga.SetMemoryBlocks, s.setBlocks),
		agent.Handle(qga.GetMemoryBlockInfo, s.blockInfo),
	}
}

// blocks lists the blocks in the order of their numbers. A kernel that cannot
// do without any of its memory has none.
func (s System) blocks(context.Context, qga.Empty) ([]qga.MemoryBlock, error) {
	dir, indices, err := s.Root.OpenNumbered(memoryDir, "memory")
	if err == nil {
		defer dir.Close()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []qga.MemoryBlock{}, nil
	case err != nil:
		return nil, fmt.Errorf("Can't open directory%q: %w", memoryDir, strerror.Reason(err))
	case len(indices) == 0:
		return nil, errors.New("guest reported zero memory blocks!")
	}
	list := make([]qga.MemoryBlock, 0, len(indices))
	for _, index := range indices {
		b, err := block(dir, index)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) { // unplugged since it was listed
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

func block(dir root.Directory, index uint64) (qga.MemoryBlock, error) {
	b := qga.MemoryBlock{PhysIndex: index, Online: true, CanOffline: new(false)}
	name := blockName(index)
	state, err := attribute(dir, name+"state")
	if errors.Is(err, fs.ErrNotExist) {
		if err := dir.Check(name); err != nil {
			return b, fmt.Errorf("Could not open '%s': %w", memoryDir+name, strerror.Reason(err))
		}
		return b, nil // always online
	}
	if err != nil {
		return b, err
	}
	if b.Online, err = isOnline(state); err != nil {
		return b, err
	}
	removable, err := attribute(dir, name+"removable")
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	switch strings.TrimSuffix(removable, "\n") {
	case "0":
	case "1":
		*b.CanOffline = true
	default:
		return b, attributeError("pread", "removable", fmt.Errorf("neither 0 nor 1: %.20q", removable))
	}
	return b, nil
}

// switchLimit is how long a block may take to go online or offline. The kernel tries
// for ever to empty a block of memory that is in use.
const switchLimit = time.Minute

// setBlocks has a result for each block; as a whole it never fails. When one block
// takes too long the others are not tried, as they would have to wait for that one.
func (s System) setBlocks(_ context.Context, args qga.SetMemoryBlocksArgs) ([]qga.MemoryBlockResult, error) {
	results := make([]qga.MemoryBlockResult, len(args.MemBlks))
	var late error
	for i, b := range args.MemBlks {
		response, err := qga.MemoryBlockFailed, late
		if late == nil {
			response, err = s.setBlock(b.PhysIndex, b.Online)
		}
		if errors.Is(err, syscall.ETIMEDOUT) {
			late = err
		}
		results[i] = qga.MemoryBlockResult{PhysIndex: b.PhysIndex, Response: response}
		if err != nil {
			// An attribute without contents is an error without a number, and 0
			// is what the C agent sends then.
			errno, _ := errors.AsType[syscall.Errno](err)
			results[i].ErrorCode = new(int64(errno))
		}
	}
	return results, nil
}

func (s System) setBlock(index uint64, online bool) (qga.MemoryBlockResponse, error) {
	dir, err := s.Root.Open(memoryDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return qga.MemoryBlockNotSupported, strerror.Reason(err)
	case err != nil:
		return qga.MemoryBlockFailed, strerror.Reason(err)
	}
	defer dir.Close()
	name := blockName(index)
	state, err := attribute(dir, name+"state")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return setStateless(dir, name, online, err)
	case err != nil:
		return qga.MemoryBlockFailed, err
	}
	// If it is not known the kernel can be told all the same.
	if now, err := isOnline(state); err == nil && now == online {
		return qga.MemoryBlockSuccess, nil
	}
	want := "offline"
	if online {
		want = "online"
	}
	if err := s.Root.Store(memoryDir+name+"state", want, switchLimit); err != nil {
		return qga.MemoryBlockFailed, err
	}
	return qga.MemoryBlockSuccess, nil
}

// isOnline counts a block that is on its way out as offline.
func isOnline(state string) (bool, error) {
	switch strings.TrimSuffix(state, "\n") {
	case "online":
		return true, nil
	case "offline", "going-offline":
		return false, nil
	}
	return false, attributeError("pread", "state", fmt.Errorf("no state of memory: %.20q", state))
}

// setStateless finds the answer for a block that has no state, because it is
// always online or because there is no such block.
func setStateless(dir root.Directory, name string, online bool, missing error) (qga.MemoryBlockResponse, error) {
	switch {
	case dir.Check(name) != nil:
		return qga.MemoryBlockNotFound, missing
	case !online:
		return qga.MemoryBlockNotSupported, missing
	}
	return qga.MemoryBlockSuccess, nil
}

func (s System) blockInfo(context.Context, qga.Empty) (qga.MemoryBlockInfo, error) {
	dir, err := s.Root.Open(memoryDir)
	if err != nil {
		return qga.MemoryBlockInfo{}, fmt.Errorf("open(%q): %w", memoryDir, strerror.Reason(err))
	}
	defer dir.Close()
	text, err := attribute(dir, "block_size_bytes")
	if err != nil {
		return qga.MemoryBlockInfo{}, err
	}
	digits, whole := strings.CutSuffix(text, "\n")
	if !whole {
		return qga.MemoryBlockInfo{}, attributeError("pread", "block_size_bytes", io.ErrUnexpectedEOF)
	}
	size, err := strconv.ParseUint(strings.TrimPrefix(digits, "0x"), 16, 64)
	if err != nil || bits.OnesCount64(size) != 1 {
		return qga.MemoryBlockInfo{}, fmt.Errorf("sysfs file \"block_size_bytes\": no hexadecimal power of two: %.20q", text)
	}
	return qga.MemoryBlockInfo{Size: size}, nil
}

func blockName(index uint64) string { return "memory" + strconv.FormatUint(index, 10) + "/" }

// attribute returns the contents of a file in dir. It is an error if there are
// none. The errors are worded as the C agent does.
func attribute(dir root.Directory, name string) (string, error) {
	data, err := dir.ReadAttribute(name)
	if err == nil && len(data) == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		op := "pread"
		if e, ok := errors.AsType[*fs.PathError](err); ok && e.Op == "open" {
			op = "open"
		}
		return "", attributeError(op, name, err)
	}
	return string(data), nil
}

func attributeError(op, name string, err error) error {
	return fmt.Errorf("%s sysfs file %q: %w", op, path.Base(name), strerror.Reason(err))
}
