package qga

// SyncArgs are the arguments of guest-sync and guest-sync-delimited.
type SyncArgs struct {
	// ID is a number of the client's choice, best a random one, by which it
	// knows the reply from a stale one.
	ID int64 `json:"id"`
}

// Sync echoes the caller's number. A client that connects, or that gave up
// waiting for a reply, sends it and drops everything up to the reply that has
// its number.
var Sync = Command[SyncArgs, int64]{Info{
	Name: "guest-sync", Since: "0.15.0", Systems: AllSystems, WhileFrozen: true,
}}

// SyncDelimited is Sync with a byte 0xFF before the reply, which is never part
// of JSON: a client may skip everything up to that byte without parsing it.
var SyncDelimited = Command[SyncArgs, int64]{Info{
	Name: "guest-sync-delimited", Since: "1.1", Systems: AllSystems, WhileFrozen: true,
}}

// Ping does nothing; its reply shows that the agent is there.
var Ping = Command[Empty, Empty]{Info{
	Name: "guest-ping", Since: "0.15.0", Systems: AllSystems, WhileFrozen: true,
}}
