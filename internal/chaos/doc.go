// Package chaos kills, stops and replaces coordinators, and makes their links slow,
// while servers join, leave and crash, routers and their clients resume, and operators
// make changes of all kinds. It writes down all that is asked and seen, has the history
// judged, and counts what must never happen: acknowledged changes that are lost, writes
// and effects of a leader of the past, removals of healthy servers. Coordinators and
// database are real programs; most
// agents and routers are scripted and run in this process, so that it knows what
// each was told. What the real ones hold and answer is looked at all the time.
package chaos
