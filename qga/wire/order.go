package wire

import "slices"

// The C agent prints the members of an object in the order of its dictionary:
// by bucket of the key's hash, the member inserted last first within a bucket.
// Nobody may rely on that order, but it is a function of the key alone, and
// printing the same bytes lets anything that compares replies, a test-suite or
// a careless script, go on working.

const buckets = 512

// bucket is the dictionary bucket of a key: gdbm's published string hash,
// modulo the number of buckets.
func bucket(key string) int {
	h := 0x238F13AF * uint32(len(key))
	for i := range len(key) {
		h += uint32(key[i]) << (i * 5 % 24)
	}
	return int((1103515243*h + 12345) % buckets)
}

// dictionaryOrder returns the order in which members with the given keys,
// inserted one after another, are printed.
func dictionaryOrder(keys []string) []int {
	order := make([]int, len(keys))
	at := make([]int, len(keys))
	for i, k := range keys {
		order[i], at[i] = i, bucket(k)
	}
	slices.SortFunc(order, func(a, b int) int {
		if at[a] != at[b] {
			return at[a] - at[b]
		}
		return b - a
	})
	return order
}
