// Package store keeps the durable table of buddyring: pools, their servers, and
// their history, in one SQLite file or in a MySQL-speaking database. It is the
// only package that speaks SQL.
//
// Every durable change of a pool is one transaction that starts by writing the
// pool's row under its expected epoch and revision. That write is the fence
// against a leader of the past, the source of the new revision, and what tells
// on repetition whether an earlier COMMIT of unknown outcome went through. So
// every method here can be repeated, and methods that write repeat themselves a
// few times when the database asks for it.
//
// The package decides nothing about members: it writes what a member.Change
// says, whole or not at all.
package store
