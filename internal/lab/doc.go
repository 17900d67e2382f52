// Package lab runs buddyring's real programs on a private network:
// coordinators, routers and agents, each on a host of its own, with faults on
// command. Its tests, under the build tag lab, hold what only real processes
// and real ICMP can show; the program in folder lab-detect makes the experiments
// of package detect.
//
// It works where netlab does, that is on Linux, and inside netlab.Enter.
package lab
