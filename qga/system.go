package qga

// HostName is the result of guest-get-host-name.
type HostName struct {
	// HostName need be neither fully qualified nor known to any name service.
	HostName string `json:"host-name"`
}

// GetHostName returns the guest's name for itself.
var GetHostName = Command[Empty, HostName]{Info{
	Name: "guest-get-host-name", Since: "2.10", Systems: AllSystems,
}}

// A User is somebody logged in.
type User struct {
	User string `json:"user"`
	// LoginTime is when the user logged in, for the first time if more than
	// once, in seconds since the Unix epoch.
	LoginTime float64 `json:"login-time"`
	// Domain is the user's domain on Windows. Absent elsewhere.
	Domain *string `json:"domain,omitempty"`
}

// GetUsers lists the users logged in, each once.
var GetUsers = Command[Empty, []User]{Info{
	Name: "guest-get-users", Since: "2.10", Systems: AllSystems,
}}

// Timezone is the time zone of the guest.
type Timezone struct {
	// Zone is an abbreviation such as CET, on Windows a localised name; it is
	// for people. Absent when not known.
	Zone *string `json:"zone,omitempty"`
	// Offset is the difference to UTC now, in seconds, positive east of
	// Greenwich, daylight saving time included.
	Offset int64 `json:"offset"`
}

// GetTimezone returns the time zone of the guest.
var GetTimezone = Command[Empty, Timezone]{Info{
	Name: "guest-get-timezone", Since: "2.10", Systems: AllSystems,
}}

// OSInfo says what operating system the guest runs. Members not known are
// absent. The first three are those of uname(2), the others the keys of the
// same names in os-release(5). Windows fills them in kind: its build number is
// the kernel release, ID is mswindows, both variants are client or server.
type OSInfo struct {
	KernelRelease *string `json:"kernel-release,omitempty"`
	KernelVersion *string `json:"kernel-version,omitempty"`
	Machine       *string `json:"machine,omitempty"`
	ID            *string `json:"id,omitempty"`
	Name          *string `json:"name,omitempty"`
	PrettyName    *string `json:"pretty-name,omitempty"`
	Version       *string `json:"version,omitempty"`
	VersionID     *string `json:"version-id,omitempty"`
	Variant       *string `json:"variant,omitempty"`
	VariantID     *string `json:"variant-id,omitempty"`
}

// GetOSInfo returns what operating system the guest runs.
var GetOSInfo = Command[Empty, OSInfo]{Info{
	Name: "guest-get-osinfo", Since: "2.10", Systems: AllSystems,
}}

// A DeviceType is the bus whose numbering identifies a device.
type DeviceType string

// PCIDevice is the only value of DeviceType.
const PCIDevice DeviceType = "pci"

// EnumValues implements Enum.
func (DeviceType) EnumValues() []string { return enumValues(PCIDevice) }

// A DeviceID identifies the model of a device.
type DeviceID struct {
	// Type decides on the members that follow; these are those of PCI.
	Type     DeviceType `json:"type"`
	VendorID uint16     `json:"vendor-id"`
	DeviceID uint16     `json:"device-id"`
}

// A Device is a virtual device of the guest and its driver.
type Device struct {
	DriverName string `json:"driver-name"`
	// DriverDate is when the driver was released, in nanoseconds since the Unix
	// epoch. Absent, like the two members after it, when not known.
	DriverDate    *int64    `json:"driver-date,omitempty"`
	DriverVersion *string   `json:"driver-version,omitempty"`
	ID            *DeviceID `json:"id,omitempty"`
}

// GetDevices lists the virtual devices that have a driver.
var GetDevices = Command[Empty, []Device]{Info{
	Name: "guest-get-devices", Since: "5.2", Systems: Windows,
}}
