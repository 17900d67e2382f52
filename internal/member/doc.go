// Package member is the vocabulary that every part of buddyring shares: who a
// server is, which phase it is in, why it was removed, what one durable change
// of a pool consists of, and the errors that cross component borders.
//
// It holds plain values and their parsers, imports the standard library only,
// and decides nothing.
package member
