// Package pool decides everything about one pool of servers: who may join and
// where on the ring, who watches whom, who is suspect, who is removed and why.
//
// The Machine is told what happened (Input), with the time, and answers with
// what is to be done (Effect). It does no I/O, starts no goroutine, reads no
// clock and draws no randomness but from the generator in its own state: the
// same state and the same inputs give the same effects. It is not safe for
// concurrent use; its host calls Step from one goroutine.
//
// # Durable and soft state
//
// Rows change in one way only. The machine proposes a member.Change (effect
// Propose), at most one at a time; the host commits it and reports Committed,
// Rejected or Fenced. Whatever arrives meanwhile waits and goes into the next
// change, so ten deaths are one revision. Replies, welcomes, assignments and
// publications that depend on a change leave after Committed, never before.
// Soft state (evidence, rounds, suspect marks, sessions, alarms) changes at
// once and never waits for the database.
//
// # The host's duties
//
//   - Call Step with every input, in the order of arrival, and carry out the
//     effects in order.
//   - Call Step with Tick no later than the time of the newest SetTimer.
//   - Commit proposals in order, one at a time, and report each outcome exactly
//     once. An unknown outcome is the host's to resolve (see the store): by trying
//     again, but never where Propose.Until is set, because the machine cannot take
//     back what was tried.
//   - After Fenced, drop the machine.
package pool
