// Command bench-xds measures the router's xDS door with grpc-go's own client, and
// prints the figures of target R4.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/buddyring/buddyring/internal/bench/xdsbench"
)

func main() {
	var o xdsbench.Options
	flag.IntVar(&o.Servers, "n", 8, "size of the pool")
	flag.IntVar(&o.Rounds, "removals", 100, "how often a server is taken out")
	flag.IntVar(&o.Drains, "drains", 20, "how often a server is drained and stopped")
	flag.IntVar(&o.Callers, "callers", 4, "how many call at the same time")
	flag.DurationVar(&o.Away, "away", 0, "how long there is no router (default 1m)")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "bench-xds:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func run(ctx context.Context, o xdsbench.Options, asJSON bool) (err error) {
	dir, err := os.MkdirTemp("", "bench-xds")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.Dir = filepath.Join(dir, "state")
	report, err := xdsbench.Measure(ctx, o)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(report)
	}
	fmt.Print(report)
	return nil
}
