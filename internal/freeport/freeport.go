// Package freeport finds addresses on this host for programs that listen there
// later, stop, and listen there again: nobody else gets the address meanwhile.
package freeport

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
)

const (
	// Ports from first on, so many of them, are above those of known services, and
	// below those that systems give out by themselves, to whoever connects too.
	first, count = 20_000, 12_000
	// attempts is how many addresses are tried.
	attempts = 100
)

// Find returns the address, HOST:PORT, of a TCP port on loopback at which nobody
// listens. The whole of 127.0.0.0/8 is loopback where the system is Linux, and
// each address then has a host of its own.
func Find(ctx context.Context) (string, error) {
	var err error
	for range attempts {
		port := first + rand.IntN(count) //nolint:gosec // it is no secret
		for _, host := range []string{
			fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)), //nolint:gosec // the same
			"127.0.0.1",
		} {
			var lis net.Listener
			if lis, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("%s:%d", host, port)); err == nil {
				return lis.Addr().String(), lis.Close()
			}
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
