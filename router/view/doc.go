// Package view is what a router knows of a pool, and how it chooses from that.
//
// A View is the immutable state of one pool: the rows as the coordinator last
// published them, the soft marks that hold now, and the servers that the
// router keeps against a removal. Snapshots, deltas, marks and the passing of
// time each give a new View; a View that is in use never changes. Its Table is
// the part that clients see: the servers that may get work, in order of
// preference, and the picks among them as pure functions of the table, the
// request and the random numbers, turns and loads that the caller passes in. A
// Warmup gives the servers that are new to a pool less than their weight at
// first.
//
// The package decides which history a change belongs to, whether a mark holds,
// who may get work, in which order, and when a removal is too big to be
// followed at once. It never does I/O, reads a clock, starts a goroutine or
// draws a random number, and it never tells the coordinator anything.
package view
