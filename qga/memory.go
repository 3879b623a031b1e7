package qga

// A MemoryBlock is a piece of memory that can be online or offline as a whole.
type MemoryBlock struct {
	// PhysIndex is the guest's own number for it.
	PhysIndex uint64 `json:"phys-index"`
	Online    bool   `json:"online"`
	// CanOffline says whether it can be taken offline. Agents always send it
	// and ignore it as an argument.
	CanOffline *bool `json:"can-offline,omitempty"`
}

// GetMemoryBlocks lists all memory blocks, in no particular order.
var GetMemoryBlocks = Command[Empty, []MemoryBlock]{Info{
	Name: "guest-get-memory-blocks", Since: "2.3", Systems: Linux,
}}

// SetMemoryBlocksArgs are the arguments of guest-set-memory-blocks.
type SetMemoryBlocksArgs struct {
	// MemBlks are the blocks to change and the states they shall have.
	MemBlks []MemoryBlock `json:"mem-blks"`
}

// A MemoryBlockResponse is how changing a memory block went.
type MemoryBlockResponse string

// The values of MemoryBlockResponse.
const (
	MemoryBlockSuccess      MemoryBlockResponse = "success"
	MemoryBlockNotFound     MemoryBlockResponse = "not-found"
	MemoryBlockNotSupported MemoryBlockResponse = "operation-not-supported"
	MemoryBlockFailed       MemoryBlockResponse = "operation-failed"
)

// EnumValues implements Enum.
func (MemoryBlockResponse) EnumValues() []string {
	return enumValues(MemoryBlockSuccess, MemoryBlockNotFound, MemoryBlockNotSupported, MemoryBlockFailed)
}

// A MemoryBlockResult is the outcome of guest-set-memory-blocks for one block.
type MemoryBlockResult struct {
	PhysIndex uint64              `json:"phys-index"`
	Response  MemoryBlockResponse `json:"response"`
	// ErrorCode is the guest's errno. Absent on success.
	ErrorCode *int64 `json:"error-code,omitempty"`
}

// SetMemoryBlocks takes memory blocks online or offline. There is one result
// for each block asked for, in the same order; a failure does not stop it.
var SetMemoryBlocks = Command[SetMemoryBlocksArgs, []MemoryBlockResult]{Info{
	Name: "guest-set-memory-blocks", Since: "2.3", Systems: Linux,
}}

// MemoryBlockInfo is what all memory blocks have in common.
type MemoryBlockInfo struct {
	// Size is the size of one block in bytes.
	Size uint64 `json:"size"`
}

// GetMemoryBlockInfo returns the size of the guest's memory blocks.
var GetMemoryBlockInfo = Command[Empty, MemoryBlockInfo]{Info{
	Name: "guest-get-memory-block-info", Since: "2.3", Systems: Linux,
}}
