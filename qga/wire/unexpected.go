package wire

import "math/bits"

// Of several unexpected members the C agent names the one that it meets first when
// the declared ones are gone from a table of GLib's, GHashTable. Which one that is
// follows from how that table works: open addressing with a triangular probe, sizes
// that are powers of two, places modulo a prime. Like the order of members in a
// reply it is nobody's to rely on, and comes out the same.

// unexpected returns the name that the C agent complains of when an object has
// members of these names, in the order of its dictionary, and some are declared. It
// returns false if all are.
func unexpected(names, declared []string) (string, bool) {
	var t hashTable
	t.grow(minShift)
	for _, name := range names {
		t.add(name)
	}
	for _, name := range declared {
		t.remove(name)
	}
	for _, s := range t.slots {
		if s.hash >= firstHash {
			return s.name, true
		}
	}
	return "", false
}

type hashTable struct {
	slots []slot
	shift int
	// names is how many there are, taken how many slots have one or had one since
	// the size last changed.
	names, taken int
}

type slot struct {
	hash uint32 // free, removed, or that of the name
	name string
}

const (
	free, removed, firstHash = 0, 1, 2
	minShift                 = 3
)

// places is, by shift, the prime by which a slot is found: the largest below the
// size, mostly.
var places = [...]uint32{
	1, 2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749,
	65521, 131071, 262139, 524287, 1048573, 2097143, 4194301,
}

// hashOf is Bernstein's string hash, of signed characters.
func hashOf(name string) uint32 {
	h := uint32(5381)
	for i := range len(name) {
		h = h*33 + uint32(int32(int8(name[i])))
	}
	return max(h, firstHash)
}

// home is the slot at which the search for a hash begins.
func (t *hashTable) home(hash uint32) int { return int(hash * 11 % places[t.shift]) }

// find returns the slot that has the name, or else the one that would get it.
func (t *hashTable) find(hash uint32, name string) int {
	grave := -1
	i := t.home(hash)
	for step := 1; t.slots[i].hash != free; step++ {
		switch s := t.slots[i]; {
		case s.hash == hash && s.name == name:
			return i
		case s.hash == removed && grave < 0:
			grave = i
		}
		i = (i + step) & (len(t.slots) - 1)
	}
	if grave >= 0 {
		return grave
	}
	return i
}

func (t *hashTable) add(name string) {
	hash := hashOf(name)
	i := t.find(hash, name)
	before := t.slots[i].hash
	if before >= firstHash {
		return
	}
	t.slots[i] = slot{hash, name}
	t.names++
	if before == free {
		t.taken++
		t.fit()
	}
}

func (t *hashTable) remove(name string) {
	i := t.find(hashOf(name), name)
	if t.slots[i].hash < firstHash {
		return
	}
	t.slots[i] = slot{hash: removed}
	t.names--
	t.fit()
}

// fit changes the size when the table is too empty, or nearly full.
func (t *hashTable) fit() {
	size := len(t.slots)
	if size > 4*t.names && size > 1<<minShift || size <= t.taken+t.taken/16 {
		t.grow(max(minShift, bits.Len(uint(float64(t.names)*1.333))))
	}
}

// grow gives the table a new size. Names move within the same slots: each goes to
// its new place, and whoever it finds there goes next.
func (t *hashTable) grow(shift int) {
	before, size := len(t.slots), 1<<shift
	t.shift = shift
	if size > before {
		t.slots = append(t.slots, make([]slot, size-before)...)
	}
	placed := make([]bool, len(t.slots))
	for old := range before {
		moving := t.slots[old]
		if placed[old] {
			continue
		}
		t.slots[old] = slot{}
		for moving.hash >= firstHash {
			i := t.home(moving.hash)
			for step := 1; placed[i]; step++ {
				i = (i + step) & (size - 1)
			}
			placed[i] = true
			moving, t.slots[i] = t.slots[i], moving
		}
	}
	t.slots = t.slots[:size]
	t.taken = t.names
}
