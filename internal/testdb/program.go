package testdb

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// New returns a server for a program that is no test, which ends it with Close.
func New(options ...string) (*Server, error) { return start("", options...) }

// Close ends the server and removes its data.
func (s *Server) Close() error { return s.close() }

// Do runs a statement as the server's administrator.
func (s *Server) Do(ctx context.Context, statement string) error { return s.exec(ctx, statement) }

// Crash ends the server by SIGKILL and keeps its data.
func (s *Server) Crash() error { return s.end(true) }

// Recover starts a server that has crashed on the data it left and waits until
// it answers.
func (s *Server) Recover() error { return s.run() }

// Servers is the server.
func (s *Server) Servers() []*Server { return []*Server{s} }

// Pid is the process of the running server.
func (s *Server) Pid() int { return s.pid }

// Pause stops the server where it is.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Continue lets a paused server go on.
func (s *Server) Continue() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	if err := syscall.Kill(s.pid, sig); err != nil {
		return fmt.Errorf("signal mariadbd: %w", err)
	}
	return nil
}

// NewCluster returns a Galera cluster that may be harmed, for a program that is no
// test, which ends it with Close. Its first nodes have their files in dirs.
func NewCluster(dirs ...string) (*Cluster, error) {
	hosts, fronts := addresses()
	l, err := newLinks(hosts, fronts)
	if err != nil {
		return nil, fmt.Errorf("start a Galera cluster: %w", err)
	}
	c := &Cluster{links: l}
	copy(c.dirs[:], dirs)
	if err := c.start(hosts, fronts); err != nil {
		return nil, errors.Join(fmt.Errorf("start a Galera cluster: %w", err), l.close())
	}
	return c, nil
}

// Close ends the cluster and removes its data.
func (c *Cluster) Close() error { return errors.Join(c.close(), c.links.close()) }

// Servers are the nodes.
func (c *Cluster) Servers() []*Server { return c.nodes }

// Crash ends all nodes by SIGKILL at once, and keeps their data.
func (c *Cluster) Crash() error {
	err := c.each(func(s *Server) error { return s.signal(syscall.SIGKILL) })
	return errors.Join(err, c.each((*Server).Crash))
}

// Pause stops all nodes where they are.
func (c *Cluster) Pause() error { return c.each((*Server).Pause) }

// Continue lets all nodes go on that were paused.
func (c *Cluster) Continue() error { return c.each((*Server).Continue) }

func (c *Cluster) each(do func(*Server) error) error {
	errs := make([]error, len(c.nodes))
	for i, s := range c.nodes {
		errs[i] = do(s)
	}
	return errors.Join(errs...)
}

// AwaitWhole waits until all nodes are back in the cluster, after Continue, Mend or
// Rejoin. One that was stopped may say for a while what was so before: all must have
// the same view.
func (c *Cluster) AwaitWhole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := c.whole(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait until the Galera cluster is whole: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
