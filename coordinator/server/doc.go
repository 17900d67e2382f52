// Package server is the coordinator: the gRPC services that agents, routers and
// operators call, and the host of the pools' machines.
//
// For each pool one goroutine owns a pool.Machine. It hands every input to the
// machine and carries the effects out in order: changes go to the store, one at
// a time, and what depends on them leaves once they are durable. No peer is
// waited for: what goes to an agent passes through a bounded outbox, what goes
// to a router is read by its own goroutine from the pool's history.
//
// The package decides nothing about members: who joins, who is suspect and who
// is removed is the machine's business, and rows are the store's.
package server
