package network

import "strconv"

// ipv4Text returns an address in dotted decimal form.
func ipv4Text(a [4]byte) string { return string(appendIPv4(nil, a)) }

func appendIPv4(b []byte, a [4]byte) []byte {
	for i, octet := range a {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendUint(b, uint64(octet), 10)
	}
	return b
}

// ipv6Text returns the text of inet_ntop(3). That is the recommended form of
// RFC 5952, but for one class of addresses: those that have only zeros before
// an IPv4 address, which automatic tunnels use, end in dotted decimal form as
// those mapped to IPv6 do.
func ipv6Text(a [16]byte) string {
	var groups [8]uint16
	for i := range groups {
		groups[i] = uint16(a[2*i])<<8 | uint16(a[2*i+1])
	}
	start, length := longestZeros(groups)
	b := make([]byte, 0, len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"))
	for i := 0; i < len(groups); i++ {
		switch {
		case i == start:
			b = append(b, "::"...)
			i += length - 1
			continue
		case i > 0 && i != start+length:
			b = append(b, ':')
		}
		if i == 6 && start == 0 && (length == 6 || length == 5 && groups[5] == 0xffff) {
			return string(appendIPv4(b, [4]byte(a[12:])))
		}
		b = strconv.AppendUint(b, uint64(groups[i]), 16)
	}
	return string(b)
}

// longestZeros finds the first of the longest runs of two zeros or more. There
// may be none: then start is beyond the end.
func longestZeros(groups [8]uint16) (start, length int) {
	start, length = len(groups)+1, 1
	for i := 0; i < len(groups); i++ {
		n := 0
		for i+n < len(groups) && groups[i+n] == 0 {
			n++
		}
		if n > length {
			start, length = i, n
		}
		i += n
	}
	return start, length
}
