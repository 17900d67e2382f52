// Package xdsbench measures the router's xDS door with grpc-go's own xDS client:
// a real router, a coordinator that is played, and real servers on loopback. Its
// tests hold the door to what it promises; Measure prints the figures.
package xdsbench
