// Command lab-detect measures how soon a crash is noticed, with real programs
// and real pings in network namespaces, and prints the figures.
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

	"github.com/buddyring/buddyring/internal/lab/detect"
	"github.com/buddyring/buddyring/internal/netlab"
)

func main() { os.Exit(run()) }

func run() int {
	cfg := detect.Config{Progress: os.Stderr}
	flag.StringVar(&cfg.Bin, "bin", "bin", "folder of the programs")
	flag.IntVar(&cfg.Servers, "n", 12, "size of the pool")
	flag.IntVar(&cfg.Crashes, "crashes", 50, "number of crashes")
	flag.IntVar(&cfg.Routers, "routers", 2, "number of routers")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := netlab.Enter(ctx, netlab.Entry{}, func(ctx context.Context) int {
		if err := measure(ctx, cfg, *asJSON); err != nil {
			fmt.Fprintln(os.Stderr, "lab-detect:", err)
			return 1
		}
		return 0
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab-detect:", err)
		return 1
	}
	return code
}

func measure(ctx context.Context, cfg detect.Config, asJSON bool) (err error) {
	if cfg.Dir, err = os.MkdirTemp("", "lab-detect-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(cfg.Dir)) }()
	if asJSON {
		cfg.Progress = io.Discard
	}
	report, err := detect.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(report)
	}
	return report.Write(os.Stdout)
}
