// Package wallclock sets the wall clock of one running process, as somebody sets
// that of a host by hand, and leaves the host's alone: for tests. The monotonic
// clock of the process runs on, as it does when a host's clock is set.
//
// A process asks the time of code that the kernel maps into it, the vDSO (vdso(7)).
// That is replaced, in this process only, by code that asks the kernel and adds how
// far the clock is ahead. So it holds for every program, Go or C. It does not hold
// for what the kernel does by its own wall clock: times of files, and waits until a
// time, as pthread_cond_timedwait has. A program with such waits waits as long as
// its clock is ahead too much, or not at all where it is behind.
//
// A thread that a signal has interrupted within the first five bytes of such a function
// would go on in the midst of another instruction; nobody has seen that yet.
package wallclock
