// Package coordbench measures a coordinator: what thousands of agents' streams
// cost it at rest, how soon all are back after it was killed, how soon a thousand
// routers have their snapshots then, and how many servers can join in a second:
// through the machine of a pool and its store alone, and over agents' streams.
//
// The coordinator is the real program, a process of its own on a MariaDB of its
// own, so that memory and processor time are the coordinator's alone. Its agents
// and routers are all in this process: each has a TCP connection and a gRPC stream
// of its own and says what a real one says, but costs one goroutine. It is no
// test: machines are shared, and times are reported, not judged.
package coordbench
