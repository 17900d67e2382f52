// Package chaos kills, stops and replaces coordinators while servers join and
// leave and an operator works, and counts what must never happen: acknowledged
// changes that are lost, writes and effects of a leader of the past, removals of
// healthy servers. Coordinators and database are real programs; the agents are
// scripted and run in this process, so that it knows what each was told.
package chaos
