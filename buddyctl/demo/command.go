// Package demo shows on one machine what buddyring does: it starts a
// coordinator, a router and a handful of servers, each a host of its own where
// the machine allows it, breaks them one after another, and tells what happens.
//
// It runs the programs beside it and learns what they do from their APIs only.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/internal/member"
)

// The sizes of a demo. Below four servers there is no ring left after a crash
// and a shutdown.
const (
	defaultHosts = 6
	minHosts     = 4
	maxHosts     = 50
)

// dirEnv tells the inner program the directory of the outer one, which removes
// it however the inner one ends.
const dirEnv = "BUDDYRING_DEMO_DIR"

// errUntrue is the failure of a demo, which the page has explained.
var errUntrue = errors.New("the demo did not come true; the reason is above")

// options are the flags.
type options struct {
	hosts    int
	serve    bool
	json     bool
	loopback bool
}

// Command returns the demo as a command of buddyctl. Its error is one that the
// page has explained already.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a pool at work on this machine: crash, shutdown, comeback",
		Long: "demo starts a coordinator on a SQLite file, a router and a few servers on this machine, and shows what\n" +
			"happens when a host dies, shuts down, comes back, or loses only its agent, while a client goes on working.\n\n" +
			"On Linux, as root or where users may make namespaces, each server is a host with a network of its own that\n" +
			"exists only inside the demo; elsewhere everything runs on loopback. Nothing is left behind.\n\n" +
			"Exit status: 0 when all that it tells has really happened, 1 otherwise.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.hosts < minHosts || o.hosts > maxHosts {
				return member.Invalid("hosts", "%d is not from %d to %d", o.hosts, minHosts, maxHosts)
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.hosts, "hosts", defaultHosts, "`number` of servers")
	f.BoolVar(&o.serve, "serve", false, "keep everything up afterwards, to look at it from another shell, until Ctrl-C")
	f.BoolVar(&o.json, "json", false, "print the facts as one JSON object instead of the story")
	f.BoolVar(&o.loopback, "loopback", false, "run on loopback even where hosts of their own are possible")
	return cmd
}

// run runs the demo in namespaces where that is possible, and on loopback
// otherwise. In namespaces this is two programs; see netlab.Enter.
func (o options) run(ctx context.Context, w io.Writer) (failed error) {
	dir := os.Getenv(dirEnv)
	if dir == "" {
		own, err := os.MkdirTemp("", "buddyring-demo-")
		if err != nil {
			return fmt.Errorf("make a directory for the demo: %w", err)
		}
		defer func() { failed = errors.Join(failed, os.RemoveAll(own)) }()
		dir = own
	}
	r := &run{options: o, dir: dir, w: w}
	code, err := exitTrue, fmt.Errorf("%w: loopback was asked for", errNoHosts)
	if !o.loopback {
		code, err = enterNamespaces(ctx, []string{dirEnv + "=" + dir}, r.inNamespaces)
	}
	if errors.Is(err, errNoHosts) {
		code, err = r.onLoopback(ctx, err), nil
	}
	switch {
	case err != nil:
		return err
	case code == exitInterrupted:
		return context.Canceled
	case code != exitTrue:
		return errUntrue
	}
	return nil
}
