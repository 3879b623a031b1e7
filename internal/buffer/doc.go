// Package buffer is for buffers that grow to tens of megabytes and go again.
//
// A large one is mapped rather than allocated, because the kernel enlarges a
// mapping by moving page tables: 64 MiB are never copied, need no second block
// of half their size at each doubling, set off no garbage collection, and go
// back to the system the moment they are released.
package buffer
