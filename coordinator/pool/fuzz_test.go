package pool_test

import (
	"math/rand/v2"
	"testing"
)

// FuzzStep lets a fuzzer make the choices of a rig: whatever is said to a
// machine in whatever order, it must not panic, and what a desk checks must
// hold.
func FuzzStep(f *testing.F) {
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 0))
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g := newRig(t, fuzzed{&data}, false)
		for turns := 0; len(data) > 0 && turns < 500; turns++ {
			g.steps(1)
		}
		g.settle()
		g.drain()
	})
}
