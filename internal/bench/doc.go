// Package bench measures a router: the choice itself, Pick over gRPC beside a bare
// echo, the fan-out of changes to watchers, and what watchers cost. The router is
// the production one, fed by a coordinator that only publishes; its clients are
// a process of their own, so that memory and answers are the router's alone.
//
// Things that are compared run in turns within one run. It is no test: machines
// are shared, and times are reported, not judged.
package bench
