// Command lab-doors makes experiments with real programs in network namespaces:
// clients use a pool by every door while servers, routers and the coordinator are
// restarted and killed. It prints how many of their requests failed: first where
// routers answer DNS, then of restarts where they do not.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/buddyring/buddyring/internal/lab/doors"
	"github.com/buddyring/buddyring/internal/netlab"
)

func main() { os.Exit(run()) }

func run() int {
	cfg := doors.Config{Progress: os.Stderr}
	flag.StringVar(&cfg.Bin, "bin", "bin", "folder of the programs")
	flag.StringVar(&cfg.HAProxy, "haproxy", "deploy/haproxy.cfg", "HAProxy's configuration")
	flag.IntVar(&cfg.Servers, "n", 8, "size of the pool")
	flag.DurationVar(&cfg.Router, "router", 10*time.Second, "how long one of the routers is away")
	flag.DurationVar(&cfg.Coordinator, "coordinator", time.Minute, "how long coordinator and database are away")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if *asJSON {
		cfg.Progress = io.Discard
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := netlab.Enter(ctx, netlab.Entry{}, func(ctx context.Context) int {
		if err := measure(ctx, cfg, *asJSON); err != nil {
			fmt.Fprintln(os.Stderr, "lab-doors:", err)
			return 1
		}
		return 0
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab-doors:", err)
		return 1
	}
	return code
}

func measure(ctx context.Context, cfg doors.Config, asJSON bool) error {
	for _, cfg.DNS = range []bool{true, false} {
		if err := measureOnce(ctx, cfg, asJSON); err != nil {
			return err
		}
	}
	return nil
}

func measureOnce(ctx context.Context, cfg doors.Config, asJSON bool) (err error) {
	if cfg.Dir, err = os.MkdirTemp("", "lab-doors-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(cfg.Dir)) }()
	report, err := doors.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(report)
	}
	return report.Write(os.Stdout)
}
