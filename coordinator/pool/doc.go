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
//     effects in order; Propose may come before the others.
//   - Call Step with Tick no later than the time of the newest SetTimer.
//   - Commit proposals in order, one at a time, and report each outcome exactly
//     once. An unknown outcome is the host's to resolve (see the store): by trying
//     again, but never where Propose.Until is set, because the machine cannot take
//     back what was tried.
//   - After Fenced, drop the machine.
//
// # The way of a doubt
//
// Machine.Step gives each input to one method and ends with what is due by now
// (wake.go) and the next change. A missed reply goes through these files:
//
//   - doubt.go: a watcher misses a server, or reaches it.
//   - round.go, second.go: who is asked about it, what they answer, when that ends.
//   - decide.go: package verdict judges what the round has found; another round, a
//     removal or nothing follows.
//   - suspect.go: the mark, by which routers prefer others meanwhile.
//   - mute.go, bereft.go, filter.go, loss.go, sweep.go, move.go: an observer that is
//     deaf, or whose subjects all died; a filter that eats ICMP; a server that loses
//     packets; neighbours that die together; a broken path between two that are well.
//   - brake.go, census.go, hold.go, release.go: what holds a removal back.
//   - batch.go, commit.go: the change that takes it out, and what follows from it.
//   - tale.go, query.go: what of all this explain shows.
//
// Joins are in hello.go, session.go and arrive.go; shutdowns and drains in drain.go;
// operators' calls in command.go.
//
// # Changing a rule
//
// Rules about one round belong into package verdict, whose table of cases is tested
// against a slow reference. For one about time, order or several servers, write down
// what should happen as a script in testdata (the commands are those of TestScripts) and
// let
//
//	go test ./coordinator/pool -run TestScripts/NAME -update
//
// print what does happen. desk_test.go plays all agents, the database and the routers by
// hand, for a test of the exact moment; it and TestRandomSequences check after each step
// what must never be (notary_test.go), by an account of their own. A rule is done when
// a test fails without it, and docs/protocol.md has it.
package pool
