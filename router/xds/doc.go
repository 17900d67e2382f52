// Package xds is the router's door for clients that speak xDS: proxyless gRPC
// with targets like xds:///POOL, and Envoy.
//
// It turns the view of a pool into the four kinds of resource that such clients
// ask for, and says when they have confirmed them. The translation is a pure
// function of the view; the protocol is go-control-plane's. The package does not
// decide who may get work, in which order, or whether a removal is certain: the
// view does. It never publishes an empty set while a pool has members, and never
// takes back a resource while its pool exists.
package xds
