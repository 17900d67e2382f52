//go:build race

package pool_test

// defaultSequences is less under the race detector, which looks for other
// things and takes ten times as long.
const defaultSequences = 5_000
