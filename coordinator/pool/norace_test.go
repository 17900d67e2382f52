//go:build !race

package pool_test

const defaultSequences = 50_000
