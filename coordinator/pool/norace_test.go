//go:build !race

package pool_test

const defaultSequences = 100_000
