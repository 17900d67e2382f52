// Package rpc is how buddyring's processes speak to one another: the one place
// that knows gRPC's codes, limits and life cycle, TLS by files, and who a peer
// is.
//
// Servers return the errors of package member and clients receive them; the
// table in between is here and nowhere else. Identity comes from the peer's
// certificate only. The package knows no service and decides nothing about
// pools.
package rpc
