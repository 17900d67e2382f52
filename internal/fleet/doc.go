// Package fleet holds the tests of the whole: a real coordinator on SQLite, the
// real agents of many servers and a real router in one process and in virtual
// time, joined by connections in memory that can be cut. Only the probes are
// played: a made-up network says which of them are answered.
//
// It has no code of its own. Nobody imports it.
package fleet
