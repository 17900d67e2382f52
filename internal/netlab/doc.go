// Package netlab builds a private network of hosts on one Linux machine: a
// switch and any number of hosts, each a network namespace with its own
// addresses, in which real programs run and ping each other.
//
// It talks netlink only and needs no ip, nft or other program. It works as root
// and in an unprivileged user namespace, beside Docker and any firewall: the
// machine's own network namespace gets no interface, address, route or rule.
// Nothing has a name outside the program: namespaces live as long as the
// processes and descriptors in them, and all processes live in a PID namespace
// whose first process is the program itself, so that the end of the program, by
// SIGKILL too, leaves nothing behind. The one exception are the limits of the
// machine's neighbour tables, which all namespaces share: a large lab raises
// them, and gives them back when it is closed.
//
// A program first calls Enter, which runs it again inside such a PID namespace,
// and there builds a Lab. Elsewhere than on Linux the package is empty.
package netlab
