package view

import (
	"fmt"
	"testing"
)

// The values are those of the reference implementation, wyhash.h of the final version
// 4.3 with WYHASH_CONDOM 1, for the bytes 0, 1, 2 and so on, and the seed 0.
func TestHashIsWyhash(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]uint64{
		0: 0x93228a4de0eec5a2, 1: 0x8e6d4af7d310c8c4, 2: 0x5121ba5bc9a828b5, 3: 0x78c4aa0c972a522d,
		4: 0xe08aeeb68058fb32, 5: 0x845a2c5da2318785, 7: 0x094e98feb6055cc6, 8: 0xb4d6ac74d009e1d4,
		9: 0xb42922e019b409be, 15: 0x87edaf96d89a08ef, 16: 0x305fdea0ed4a2619, 17: 0xd29ffdd201a46f9a,
		23: 0x735a0e86527147f0, 31: 0xebc13906e5018315, 32: 0x5b00c06ef7540f8f, 33: 0x5e1a2536ff90cc32,
		47: 0xe2cb58f6ab8e4419, 48: 0xecbfb7ff9e3d9a97, 49: 0x0691f11bac523a91, 63: 0x907220c8cff2e2c7,
	} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i)
		}
		if got := hash(string(b)); got != want {
			t.Errorf("hash of %d bytes = %#016x, want %#016x", n, got, want)
		}
	}
}

// Keys that differ little are spread over the table as random numbers would be:
// the chi-squared of 256 parts is within five standard deviations of its mean.
func TestHashSpreadsKeysThatAreAlike(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]func(i int) string{
		"numbers":       func(i int) string { return fmt.Sprint(i) },
		"sessions":      func(i int) string { return fmt.Sprintf("session-%07d", i) },
		"three bytes":   func(i int) string { return string([]byte{byte(i), byte(i >> 8), byte(i >> 16)}) },
		"in the middle": func(i int) string { return fmt.Sprintf("https://shop.example.org/%06d/basket/of/apples", i) },
		"the last byte": func(i int) string { return fmt.Sprintf("user/%05x", i) },
	} {
		const keys, parts = 1 << 16, 256
		var counts [parts]int
		for i := range keys {
			counts[hash(key(i))>>56]++
		}
		chi := 0.0
		for _, n := range counts {
			d := float64(n) - keys/parts
			chi += d * d / (keys / parts)
		}
		if chi < 142 || chi > 368 {
			t.Errorf("%s: chi-squared %.0f, want about 255", name, chi)
		}
	}
}
