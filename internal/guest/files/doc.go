// Package files gives hosts access to the guest's files through handles that
// outlive the connection on which they were opened.
//
// I/O goes straight to the kernel: nothing is buffered between commands, so a
// write is seen by others and its failure by the client at once, and reads and
// writes share one position without further ado.
//
// Nothing is opened or read in a way that waits for somebody else: a FIFO
// without a writer is empty, a terminal without input is out of data. A disk, or
// the server of a network file system, that does not answer is given up after a
// while; until the kernel returns, the handle is in use and no other is.
package files
