package pool_test

import "testing"

// FuzzStep lets a fuzzer choose what TestRandomSequences draws: every run of
// bytes is a sequence of agents, commits, operators and clock, with the same
// assertions after each step.
func FuzzStep(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x05\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"))
	f.Fuzz(func(t *testing.T, data []byte) {
		g := newRig(t, fuzzed{&data}, false)
		g.steps(min(8+len(data)/4, 200))
		g.drain()
	})
}
