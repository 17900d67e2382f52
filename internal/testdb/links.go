package testdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/relay"
)

// groupPort is where the nodes of a cluster listen to each other.
const groupPort = "4567"

// links are the ways between the nodes of a cluster. The others reach a node at its
// front, an address where the links listen. A node calls from its own address, so
// that the links know who calls; they pass the call on from the front of the caller,
// so that the node that is called knows it by that.
type links struct {
	hosts, fronts []string
	relays        []*relay.Relay
	// ways are those from one node to another.
	ways map[way]*relay.Way
}

// way is that of what one node sends to another.
type way struct{ from, to int }

// newLinks listens at the fronts of nodes with these addresses of their own.
func newLinks(hosts, fronts []string) (*links, error) {
	l := &links{hosts: hosts, fronts: fronts, ways: map[way]*relay.Way{}}
	for from := range hosts {
		for to := range hosts {
			l.ways[way{from, to}] = new(relay.Way)
		}
	}
	for node, front := range fronts {
		lis, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(front, groupPort))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make links: %w", err), l.close())
		}
		l.relays = append(l.relays, relay.Start(lis, func(caller net.Addr) *relay.Path { return l.path(caller, node) }))
	}
	return l, nil
}

// path is that of a call to a node; nil if no node calls.
func (l *links) path(caller net.Addr, node int) *relay.Path {
	host, _, _ := net.SplitHostPort(caller.String())
	from := slices.Index(l.hosts, host)
	if from < 0 {
		return nil
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(l.fronts[from])}}
	return &relay.Path{
		There: l.ways[way{from, node}], Back: l.ways[way{node, from}],
		Dial: func(ctx context.Context) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", net.JoinHostPort(l.hosts[node], groupPort))
		},
	}
}

// mend opens all ways, and makes them quick.
func (l *links) mend() {
	for _, w := range l.ways {
		w.Slow(0, 0)
		w.Open()
	}
}

func (l *links) close() error {
	var errs []error
	for _, r := range l.relays {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

// Sever loses all that two nodes send to each other, until Mend.
func (c *Cluster) Sever(a, b int) {
	c.links.ways[way{a, b}].Shut()
	c.links.ways[way{b, a}].Shut()
}

// Isolate cuts a node off from all others.
func (c *Cluster) Isolate(node int) {
	for other := range c.nodes {
		if other != node {
			c.Sever(node, other)
		}
	}
}

// Slow delays all that nodes send to each other, until Mend.
func (c *Cluster) Slow(delay time.Duration) {
	for _, w := range c.links.ways {
		w.Slow(delay, 0)
	}
}

// Mend ends all cuts and delays.
func (c *Cluster) Mend() { c.links.mend() }
