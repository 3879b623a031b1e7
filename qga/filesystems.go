package qga

// FSTrimArgs are the arguments of guest-fstrim.
type FSTrimArgs struct {
	// Minimum is the length in bytes below which a free range need not be
	// discarded. Absent means 0: discard all.
	Minimum *int64 `json:"minimum,omitempty"`
}

// A TrimmedPath is the outcome of guest-fstrim for one file system.
type TrimmedPath struct {
	// Path is the mount point.
	Path string `json:"path"`
	// Trimmed is how many bytes were discarded. Absent on failure, and on
	// Windows always.
	Trimmed *int64 `json:"trimmed,omitempty"`
	// Minimum is the minimum in bytes that the file system applied. Absent on
	// failure, and on Windows always.
	Minimum *int64 `json:"minimum,omitempty"`
	// Error is why the file system was not trimmed. Absent on success.
	Error *string `json:"error,omitempty"`
}

// FSTrimResult is the outcome of guest-fstrim.
type FSTrimResult struct {
	Paths []TrimmedPath `json:"paths" since:"2.4"`
}

// FSTrim tells the disks which blocks no file system uses. A file system that
// cannot be trimmed does not make the command fail.
var FSTrim = Command[FSTrimArgs, FSTrimResult]{Info{
	Name: "guest-fstrim", Since: "1.2", Systems: Linux | Windows,
}}

// A Filesystem is a mounted file system that lies on disks of the guest.
type Filesystem struct {
	// Name is the kernel's name of the block device without /dev, such as vda1
	// or dm-0; on Windows the path of the volume.
	Name       string `json:"name"`
	Mountpoint string `json:"mountpoint"`
	// Type is the system's name for the format, such as ext4 or NTFS.
	Type string `json:"type"`
	// UsedBytes, TotalBytes and TotalBytesPrivileged are sizes in bytes, absent
	// when they cannot be found out. TotalBytes leaves out what is reserved for
	// root; TotalBytesPrivileged is everything and absent on Windows.
	UsedBytes            *uint64 `json:"used-bytes,omitempty" since:"3.0"`
	TotalBytes           *uint64 `json:"total-bytes,omitempty" since:"3.0"`
	TotalBytesPrivileged *uint64 `json:"total-bytes-privileged,omitempty" since:"9.1"`
	// Disk are the disks or partitions under the file system, volume managers
	// seen through. Empty when there is nothing to be said of them.
	Disk []DiskAddress `json:"disk"`
}

// GetFSInfo lists the mounted file systems, network file systems excepted.
var GetFSInfo = Command[Empty, []Filesystem]{Info{
	Name: "guest-get-fsinfo", Since: "2.2", Systems: Linux | Windows,
}}
