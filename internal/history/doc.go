// Package history keeps what was asked of the coordinators and what was seen of
// them, by those who asked and saw, and judges it: whether all operations could
// have happened one after the other, each between its call and its return, and
// whether the watch streams keep their six guarantees. It talks to nobody, reads
// no clock, and believes no coordinator.
package history
