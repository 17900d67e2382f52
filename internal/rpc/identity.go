package rpc

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/peer"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
)

// Role says what kind of process a certificate is for.
type Role string

// The roles. The zero Role is that of a certificate that is not buddyring's.
const (
	RoleAgent       Role = "agent"
	RoleRouter      Role = "router"
	RoleCoordinator Role = "coordinator"
	RoleAdmin       Role = "admin"
	// RoleClient is for programs that use a pool: they may ask routers.
	RoleClient Role = "client"
)

// Identity is what a certificate's only URI SAN says:
// spiffe://DOMAIN/buddyring/agent/POOL/NAME, and for the other roles
// spiffe://DOMAIN/buddyring/ROLE/NAME.
type Identity struct {
	Domain string
	Role   Role
	// Pool is set for agents only.
	Pool member.Pool
	Name string
}

const uriScheme = "spiffe://"

// String returns the URI, or "" for the zero Identity.
func (i Identity) String() string {
	if i.Role == "" {
		return ""
	}
	path := uriScheme + i.Domain + "/buddyring/" + string(i.Role)
	if i.Role == RoleAgent {
		path += "/" + string(i.Pool)
	}
	return path + "/" + i.Name
}

// ParseIdentity is the inverse of String; the error names field.
func ParseIdentity(field, uri string) (Identity, error) {
	bad := func() error {
		return member.Invalid(field, "%q is none of spiffe://DOMAIN/buddyring/agent/POOL/ID and "+
			"spiffe://DOMAIN/buddyring/{router,coordinator,admin,client}/NAME", uri)
	}
	rest, ok := strings.CutPrefix(uri, uriScheme)
	if !ok {
		return Identity{}, bad()
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 4 || parts[1] != "buddyring" {
		return Identity{}, bad()
	}
	id := Identity{Domain: parts[0], Role: Role(parts[2]), Name: parts[len(parts)-1]}
	switch id.Role {
	case RoleAgent:
		if len(parts) != 5 {
			return Identity{}, bad()
		}
		pool, err := member.ParsePool(field, parts[3])
		if err != nil {
			return Identity{}, err
		}
		id.Pool = pool
	case RoleRouter, RoleCoordinator, RoleAdmin, RoleClient:
		if len(parts) != 4 {
			return Identity{}, bad()
		}
	default:
		return Identity{}, bad()
	}
	for _, name := range []string{id.Domain, id.Name} {
		if _, err := member.ParseID(field, name); err != nil {
			return Identity{}, err
		}
	}
	return id, nil
}

// certificateIdentity returns the identity in a certificate. A certificate
// must have exactly one URI SAN: with two, it would speak for two.
func certificateIdentity(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("certificate %q has %d URI SANs; exactly one is needed",
			cert.Subject.CommonName, len(cert.URIs))
	}
	return ParseIdentity("URI SAN", cert.URIs[0].String())
}

// PeerIdentity returns who the client of an RPC is by its certificate. It is
// false only where the connection has no TLS and nobody can be identified. A
// client whose certificate is valid but not buddyring's, or of another domain,
// is the zero Identity and true.
func PeerIdentity(ctx context.Context) (Identity, bool) {
	info, ok := peerInfo(ctx)
	if !ok || !info.tls {
		return Identity{}, false
	}
	return info.identity, true
}

// RequireRole returns an ErrPermission unless the client has one of the roles.
// Without TLS everybody has every role.
func RequireRole(ctx context.Context, roles ...Role) error {
	id, ok := PeerIdentity(ctx)
	if !ok || slices.Contains(roles, id.Role) {
		return nil
	}
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	who := id.String()
	if who == "" {
		who = "a certificate that is not buddyring's or of another domain"
	}
	return fmt.Errorf("%w: needs the role %s, but the peer is %s", member.ErrPermission, strings.Join(names, " or "), who)
}

// PeerConn returns the connection on which an RPC arrived, or nil where the
// server is not one of this package.
func PeerConn(ctx context.Context) *Conn {
	info, ok := peerInfo(ctx)
	if !ok {
		return nil
	}
	return info.conn
}

// Source is where the client of an RPC comes from, as quotas count it.
func Source(ctx context.Context) netip.Prefix {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Prefix{}
	}
	return quota.SourceOf(p.Addr)
}

func peerInfo(ctx context.Context) (authInfo, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return authInfo{}, false
	}
	info, ok := p.AuthInfo.(authInfo)
	return info, ok
}
