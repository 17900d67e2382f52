package view

import "math/bits"

// hash is that of keys and of server ids: wyhash, final version 4, with the secrets
// that it comes with and the seed 0 (Wang Yi, https://github.com/wangyi-fudan/wyhash).
// All routers and client libraries must have the same. It is no defence against keys
// that are made up to collide.
func hash(s string) uint64 {
	n := len(s)
	switch {
	case n > 16:
		return hashLong(s)
	case n >= 8 && n < 16:
		// The same as below, with fewer loads.
		return hashEnd(bits.RotateLeft64(load8(s, 0), 32), load8(s, n-8), hashSeed, n)
	case n >= 4:
		middle := n >> 3 << 2
		return hashEnd(load4(s, 0)<<32|load4(s, middle), load4(s, n-4)<<32|load4(s, n-4-middle), hashSeed, n)
	case n > 0:
		return hashEnd(uint64(s[0])<<16|uint64(s[n>>1])<<8|uint64(s[n-1]), 0, hashSeed, n)
	}
	return hashEnd(0, 0, hashSeed, 0)
}

const (
	hashSecret0 = 0x2d358dccaa6c78a5
	hashSecret1 = 0x8bb84b93962eacc9
	hashSecret2 = 0x4b33a62ed433d4a3
	hashSecret3 = 0x4d5a2da51de1aa47
	// hashSeed is the seed 0 as wyhash prepares it.
	hashSeed = hashSecret0*hashSecret1>>64 ^ hashSecret0*hashSecret1&(1<<64-1)
)

// hashLong is for more than 16 bytes.
func hashLong(s string) uint64 {
	i, n, seed := 0, len(s), uint64(hashSeed)
	if n >= 48 {
		second, third := seed, seed
		for ; n-i >= 48; i += 48 {
			seed = mix(load8(s, i)^hashSecret1, load8(s, i+8)^seed)
			second = mix(load8(s, i+16)^hashSecret2, load8(s, i+24)^second)
			third = mix(load8(s, i+32)^hashSecret3, load8(s, i+40)^third)
		}
		seed ^= second ^ third
	}
	for ; n-i > 16; i += 16 {
		seed = mix(load8(s, i)^hashSecret1, load8(s, i+8)^seed)
	}
	return hashEnd(load8(s, n-16), load8(s, n-8), seed, n)
}

func hashEnd(a, b, seed uint64, n int) uint64 {
	hi, lo := bits.Mul64(a^hashSecret1, b^seed)
	return mix(lo^hashSecret0^uint64(n), hi^hashSecret1)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func load4(s string, at int) uint64 {
	s = s[at : at+4]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}

func load8(s string, at int) uint64 {
	s = s[at : at+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}
