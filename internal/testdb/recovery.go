package testdb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Recover brings a cluster back of which all nodes have crashed: the one that has
// come furthest makes it anew, and the others join.
func (c *Cluster) Recover() error {
	type survivor struct {
		*Server

		at place
	}
	var all []survivor
	for i, s := range c.nodes {
		at, err := s.recovered()
		if err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
		all = append(all, survivor{s, at})
	}
	slices.SortStableFunc(all, func(a, b survivor) int { return cmp.Compare(b.at.seqno, a.at.seqno) })
	if err := all[0].mayBootstrap(); err != nil {
		return err
	}
	for i, s := range all {
		once := []string{s.at.option()}
		if i == 0 {
			once = append(once, "--wsrep-new-cluster")
		}
		if err := s.join(i+1, once...); err != nil {
			return err
		}
	}
	return nil
}

// Rejoin starts a node that has crashed, beside others that went on, on the data it
// left. It gets what it has missed.
func (c *Cluster) Rejoin(node int) error {
	s := c.nodes[node]
	at, err := s.recovered()
	if err != nil {
		return fmt.Errorf("node %d: %w", node, err)
	}
	return s.join(len(c.nodes), at.option())
}

// place is how far a node has come in a history.
type place struct {
	history string
	seqno   int64
}

// option starts a node from there.
func (p place) option() string {
	return fmt.Sprintf("--wsrep-start-position=%s:%d", p.history, p.seqno)
}

// recovered asks the data of a node that was killed how far it has come.
func (s *Server) recovered() (at place, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	args := append(s.arguments("--skip-networking", "--socket="+s.socket(), "--wsrep-recover"), s.options...)
	out, err := exec.CommandContext(ctx, s.mariadbd, args...).CombinedOutput() //nolint:gosec // our own program
	const says = "Recovered position: "
	_, position, ok := strings.Cut(string(out), says)
	if err == nil && !ok {
		err = errors.New("it does not say")
	}
	if err != nil {
		return place{}, fmt.Errorf("recover position: %w\n%s", err, out)
	}
	history, seqno, _ := strings.Cut(strings.Fields(position)[0], ":")
	if _, err := fmt.Sscan(strings.Split(seqno, ",")[0], &at.seqno); err != nil {
		return place{}, fmt.Errorf("recover position: %q: %w", position, err)
	}
	at.history = history
	return at, nil
}

// mayBootstrap lets a node make a cluster that was not the last to leave it.
func (s *Server) mayBootstrap() error {
	path := filepath.Join(s.data(), "grastate.dat")
	state, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read state of node: %w", err)
	}
	state = bytes.ReplaceAll(state, []byte("safe_to_bootstrap: 0"), []byte("safe_to_bootstrap: 1"))
	if err := os.WriteFile(path, state, 0o600); err != nil { //nolint:gosec // our own directory
		return fmt.Errorf("write state of node: %w", err)
	}
	return nil
}
