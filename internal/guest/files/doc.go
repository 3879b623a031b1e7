// Package files gives hosts access to the guest's files through handles that
// outlive the connection on which they were opened.
//
// I/O goes straight to the kernel: nothing is buffered between commands, so a
// write is seen by others and its failure by the client at once, and reads and
// writes share one position without further ado.
//
// Nothing is opened or read in a way that waits for somebody else: a FIFO
// without a writer is empty, a terminal without input is out of data. What
// cannot be bounded is the kernel waiting for a disk, or for the server of a
// network file system that is gone. That holds up the client that asked, and
// for a while those that want the same handle, but nobody else.
package files
