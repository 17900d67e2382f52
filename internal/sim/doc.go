// Package sim runs a pool of up to a hundred thousand servers in virtual time,
// around the packages that decide in production: agent/detector,
// coordinator/pool with ring and verdict, and router/view. It breaks hosts,
// agents and networks, knows the truth about them, and counts what the system
// makes of it.
//
// # How it works
//
// One goroutine takes events from a queue in order of virtual time. A host has a
// kernel, which answers echoes; a pair of clocks that may jump, drift or stand
// still; and an agent's process, which may be stopped, starved, deaf or lying.
// What happens between probes and streams is decided packet by packet by a model
// of the network: loss on each way, independent or in bursts of Gilbert and
// Elliott, per link or per host; delay, jitter and stragglers; cuts, filters and
// partitions. Streams behave as TCP does: a lost packet is sent again after
// 200 ms, 400 ms and so on, and what comes behind it waits, so that the echo of
// a nonce from a lossy host is late and not lost; a cut is silence; the end of a
// process is a FIN.
//
// Equal Options give equal runs: nothing reads a clock, depends on the order of
// a map, or draws from a generator that was not seeded. The one real clock is in
// the meter of the machine's cost, which only prints. A Result carries a hash of
// everything that the coordinator heard and did.
//
// # What it is not
//
// The shells are not in it. What agent/daemon and coordinator/server do around
// the pure packages is done again in agent.go and coordinator.go, as little as
// there is: the handshake, digests and their acknowledgement, the pauses before
// a new stream, commits and their outcome. The processors of hosts and of the
// coordinator take no time; the table is a map.
package sim
