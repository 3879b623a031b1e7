package freeze

import (
	"path"
	"slices"
	"strings"

	"github.com/bellhop-vm/bellhop/internal/guest/disks"
	"github.com/bellhop-vm/bellhop/internal/guest/mounts"
	"github.com/bellhop-vm/bellhop/internal/guest/root"
)

// freezable returns the mounts that a freeze is for, of those that wanted selects.
// It leaves alone what has nothing to write, what a daemon of the guest serves,
// which may need another file system for that, and what matches an exclude.
func freezable(all []mounts.Mount, exclude []string, wanted func(mounts.Mount) bool) []mounts.Mount {
	return slices.DeleteFunc(slices.Clone(all), func(m mounts.Mount) bool {
		return m.ReadOnly || strings.HasPrefix(m.Type, "fuse") || excluded(m, exclude) || !wanted(m)
	})
}

func excluded(m mounts.Mount, patterns []string) bool {
	for _, pattern := range patterns {
		for _, point := range points(m) {
			// The patterns were checked when the configuration was read.
			if ok, _ := path.Match(pattern, point); ok {
				return true
			}
		}
	}
	return false
}

// points returns all places where something of a file system is mounted.
func points(m mounts.Mount) []string { return append([]string{m.Point}, m.Others...) }

// inOrder returns mounts in the order in which they can be frozen: the latest
// first, but a file system always before the one that it is stored on. The last
// act of a freeze is to write, which the latter would not let pass any more.
//
// Those stored in files go before all others: where such a file is remains
// unknown if it was opened by way of a mount that is no more to be seen.
func inOrder(dir root.Dir, all []mounts.Mount) []mounts.Mount {
	upon, inFile := stacked(dir, all)
	ordered := make([]mounts.Mount, 0, len(all))
	seen := make([]bool, len(all))
	var visit func(int)
	visit = func(i int) {
		if seen[i] {
			return
		}
		seen[i] = true
		for _, j := range slices.Backward(upon[i]) {
			visit(j)
		}
		ordered = append(ordered, all[i])
	}
	for i := range slices.Backward(all) {
		if inFile[i] {
			visit(i)
		}
	}
	for i := range slices.Backward(all) {
		visit(i)
	}
	return ordered
}

// stacked returns for each mount those that are stored on it: below them there
// is a loop device made of one of its files. It also returns which mounts have
// any loop device below.
func stacked(dir root.Dir, all []mounts.Mount) (upon [][]int, inFile []bool) {
	upon, inFile = make([][]int, len(all)), make([]bool, len(all))
	where := byPoint(all)
	tree := disks.NewTree(dir)
	for i, m := range all {
		top, ok := tree.Path(m.Major, m.Minor)
		if !ok {
			continue
		}
		devices := []string{top}
		if m.Type == "btrfs" {
			devices = tree.BtrfsMembers(top)
		}
		for _, file := range backingFiles(tree, devices) {
			inFile[i] = true
			if j, ok := holder(where, file); ok && j != i {
				upon[j] = append(upon[j], i)
			}
		}
	}
	return upon, inFile
}

// backingFiles returns the files that loop devices among the given devices, or
// below them, are made of.
func backingFiles(tree *disks.Tree, devices []string) (files []string) {
	seen := make(map[string]bool)
	for len(devices) > 0 {
		d := devices[0]
		devices = devices[1:]
		if seen[d] {
			continue
		}
		seen[d] = true
		if file := tree.BackingFile(d); file != "" {
			files = append(files, file)
		}
		devices = append(devices, tree.BuiltOn(d)...)
	}
	return files
}

func byPoint(all []mounts.Mount) map[string]int {
	where := make(map[string]int, len(all))
	for i, m := range all {
		for _, point := range points(m) {
			where[point] = i
		}
	}
	return where
}

// holder returns the mount that a file is in. A file's name is all that the
// kernel tells of it, and to look it up could wait for a dead server.
func holder(where map[string]int, file string) (int, bool) {
	for dir := path.Clean(file); ; dir = path.Dir(dir) {
		if i, ok := where[dir]; ok {
			return i, true
		}
		if dir == "/" || dir == "." {
			return 0, false
		}
	}
}
