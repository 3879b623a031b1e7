//go:build linux

// Command writer writes to file systems as a database does to its log, and
// knows what has been promised to be durable.
//
//	writer ACKED DIRECTORY...
//	writer -count DIRECTORY...
//	writer -hold FILE
//
// The first form appends numbered records to the file "records" in each
// directory, and after each fsync stores the record's number in the file
// ACKED/NAME, NAME being the directory's last element. Between records it dirties
// some pages that nobody syncs but a freeze. It writes to no directory while
// there is a file ACKED/NAME.pause, nor to one without "records", which is one
// whose file system is not mounted. After an error it tries again.
//
// The second form prints how many records there are in each directory, and
// fails if anything else is in between.
//
// The third form begins a write that does not end: what is to be written has to
// come from a pipe, and nothing does.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	recordSize = 64
	bulkSize   = 1 << 20
	bulkStep   = 16 << 10
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: writer ACKED DIRECTORY... | writer -count DIRECTORY... | writer -hold FILE")
	}
	first, dirs := os.Args[1], os.Args[2:]
	switch first {
	case "-hold":
		log.Fatal(hold(dirs[0]))
	case "-count":
		for _, dir := range dirs {
			n, err := count(filepath.Join(dir, "records"))
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(n)
		}
		return
	}
	for _, dir := range dirs {
		go write(dir, filepath.Join(first, filepath.Base(dir)))
	}
	select {}
}

// record returns the n-th record, the first being 1.
func record(n int) []byte { return fmt.Appendf(nil, "%*d\n", recordSize-1, n) }

// write writes records for ever.
func write(dir, acked string) {
	ack, err := os.Create(acked)
	if err != nil {
		log.Fatal(err)
	}
	for n := 1; ; {
		time.Sleep(10 * time.Millisecond)
		if _, err := os.Lstat(acked + ".pause"); err == nil {
			continue
		}
		if err := writeOne(dir, n); err != nil {
			log.Print(err)
			time.Sleep(time.Second)
			continue
		}
		if _, err := ack.WriteAt([]byte(strconv.Itoa(n)), 0); err != nil {
			log.Fatal(err)
		}
		n++
	}
}

// writeOne writes a record, and when it returns nil the record is durable. The
// files are closed then, so that they are in nobody's way.
func writeOne(dir string, n int) error {
	f, err := os.OpenFile(filepath.Join(dir, "records"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// At its place rather than at the end, so that it may be written again.
	if _, err := f.WriteAt(record(n), int64(n-1)*recordSize); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	bulk, err := os.OpenFile(filepath.Join(dir, "bulk"), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer bulk.Close()
	_, err = bulk.WriteAt(make([]byte, bulkStep), int64(n)*bulkStep%bulkSize)
	return err
}

// count returns the number of whole records in a file. The last one may be
// torn: it was not acknowledged.
func count(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	whole := len(data) / recordSize
	for n := 1; n <= whole; n++ {
		got := string(data[(n-1)*recordSize : n*recordSize])
		switch {
		case got == string(record(n)):
		case n == whole:
			return n - 1, nil
		default:
			return 0, fmt.Errorf("%s: record %d is %q", path, n, got)
		}
	}
	return whole, nil
}

// hold has the kernel wait in the midst of a write, while it keeps others from
// freezing the file system.
func hold(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	_, err = unix.Splice(pipe[0], nil, int(f.Fd()), nil, recordSize, 0)
	return fmt.Errorf("splice ended: %w", err)
}
