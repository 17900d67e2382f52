// Package history keeps what was asked of the coordinators and what was seen of
// them, by those who asked and saw, and judges it: whether all operations could
// have happened one after the other, each between its call and its return, whether
// the routers' streams keep their six guarantees, and whether what routers tell
// their clients is what the table had. It talks to nobody, reads no clock, and
// believes no coordinator and no router.
package history
