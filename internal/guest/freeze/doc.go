// Package freeze stops all writing to the guest's file systems, so that a copy
// of their disks is consistent, and sees to it that this comes to an end.
//
// # A freeze
//
// A [Freezer] lists the file systems that lie on disks, opens them, and has them
// write back what they hold, all of which may fail or take its time while the
// guest works on. Then it starts the guard, and only then does it freeze one
// after another: what is stored on another file system before that one.
//
// # Its end
//
// Whoever gets there first ends it:
//
//   - the host, by guest-fsfreeze-thaw;
//   - the watchdog, when the host has not come back in time;
//   - the agent's end by a signal, and the next agent's start;
//   - the guard: a process of its own that has the file systems open and thaws
//     them when the agent is gone, or stands still.
//
// All of them thaw through descriptors that were opened before the freeze, which
// needs neither a path nor a mount. What a thaw reports is what it thawed itself,
// so a host that was too late sees fewer than it froze.
package freeze
