package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

const (
	maxBootIDBytes = 128
	// routeTime is how long the look for the route to a coordinator may take.
	routeTime = 2 * time.Second
)

// readBootID reads the id of this boot from a file, or asks the system where
// path is empty.
func readBootID(path string) (string, error) {
	source := systemBootID
	if path != "" {
		source = func() (string, error) {
			data, err := os.ReadFile(path)
			return string(data), err
		}
	}
	text, err := source()
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	id := strings.TrimSpace(text)
	if id == "" || len(id) > maxBootIDBytes || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", member.Invalid("boot-id-file", "must hold one word of at most %d bytes", maxBootIDBytes)
	}
	return id, nil
}

// routes returns a Deps.Route: the source addresses that this host's kernel
// chooses for a coordinator, one for each family that its name has. Nothing is
// sent. Addresses that other hosts cannot reach are left out unless allowLocal
// is set, and so are those that do not last where there is another.
func routes(allowLocal bool) func(ctx context.Context, address string) []netip.Addr {
	return func(ctx context.Context, address string) []netip.Addr {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, routeTime)
		defer cancel()
		var found []netip.Addr
		for _, network := range []string{"udp4", "udp6"} {
			d := net.Dialer{Control: preferPublic}
			conn, err := d.DialContext(ctx, network, net.JoinHostPort(host, "9"))
			if err != nil {
				continue // that family leads nowhere
			}
			local, _ := netip.ParseAddrPort(conn.LocalAddr().String())
			_ = conn.Close() // nothing was sent
			if a, err := member.ParseProbeAddress("route", local.Addr().String(), allowLocal); err == nil {
				found = append(found, a)
			}
		}
		return found
	}
}
