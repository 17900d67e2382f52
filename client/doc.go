// Package client connects programs to the servers of a buddyring pool.
//
// A program follows a pool through one of its routers and keeps what that says
// in memory: a choice among the servers is made in the program itself, in
// nanoseconds, and never waits for the network. Routers may die; what they have
// said last is used for as long as none of them can be reached, and with
// [Config.StateDir] also after a restart of the program.
//
// For gRPC, [DialOption] makes a target of the form buddyring:///POOL work:
//
//	conn, err := grpc.NewClient("buddyring:///web", client.DialOption(cfg), creds)
//
// For HTTP, [Transport] is an [net/http.RoundTripper]. For everything else,
// [Open] gives a [Pool], with [Pool.Pick] and [Pool.Watch].
//
// Servers that are ACTIVE are preferred to those that are SUSPECT, SERVICE_DOWN
// and HELD_BACK, in this order; see [State]. Who is what, the coordinator and the
// router decide. The package decides only which router to follow, and whether
// what that says may replace what is known.
package client
