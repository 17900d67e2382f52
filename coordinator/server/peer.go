package server

import (
	"context"
	"net/netip"

	"google.golang.org/grpc/peer"

	"github.com/buddyring/buddyring/internal/rpc"
)

// peerInfo is what a connection tells about the client.
type peerInfo struct {
	// secured says that there is TLS, and identity is the certificate's.
	secured  bool
	identity rpc.Identity
	// address is for people; ip is not valid where it is no IP address.
	address string
	ip      netip.Addr
}

func peerOf(ctx context.Context) peerInfo {
	var info peerInfo
	info.identity, info.secured = rpc.PeerIdentity(ctx)
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return info
	}
	info.address = p.Addr.String()
	if at, err := netip.ParseAddrPort(info.address); err == nil {
		info.ip = at.Addr().Unmap().WithZone("")
	}
	return info
}

// actor is how the client is named in the history.
func (p peerInfo) actor() string {
	if id := p.identity.String(); id != "" {
		return id
	}
	return "admin at " + p.address
}
