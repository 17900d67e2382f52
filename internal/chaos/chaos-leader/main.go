// Command chaos-leader kills, stops and replaces the leader of three real
// coordinators on a MariaDB while servers join and leave, and prints how long
// there was none and what went wrong.
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

	"github.com/buddyring/buddyring/internal/chaos"
)

func main() { os.Exit(run()) }

func run() int {
	cfg := chaos.Config{Progress: os.Stderr}
	var asJSON bool
	flag.StringVar(&cfg.Bin, "bin", "bin", "folder of the programs")
	flag.IntVar(&cfg.Coordinators, "coordinators", 3, "number of coordinators")
	flag.IntVar(&cfg.Servers, "servers", 100, "number of scripted agents")
	flag.IntVar(&cfg.Agents, "agents", 4, "number of real agents")
	flag.IntVar(&cfg.Kills, "kills", 100, "how often the leader is killed")
	flag.IntVar(&cfg.Handovers, "handovers", 20, "how often it is told to stop")
	flag.IntVar(&cfg.Stops, "stops", 3, "how often it is stopped by SIGSTOP and continued")
	flag.IntVar(&cfg.Cuts, "cuts", 3, "how often it is cut off from the database")
	flag.IntVar(&cfg.Outages, "outages", 4, "how often the database is stopped, or killed, under a leader that is well")
	flag.DurationVar(&cfg.StopFor, "stop-for", 20*time.Second, "how long the last three last")
	flag.IntVar(&cfg.Crashes, "crashes", 10, "how often it is killed together with the database")
	flag.BoolVar(&asJSON, "json", false, "print JSON")
	flag.Parse()
	if asJSON {
		cfg.Progress = io.Discard
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, cfg, asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "chaos-leader:", err)
		return 1
	}
	return 0
}

func measure(ctx context.Context, cfg chaos.Config, asJSON bool) (err error) {
	if cfg.Dir, err = os.MkdirTemp("", "chaos-leader-"); err != nil {
		return err
	}
	report, err := chaos.Run(ctx, cfg)
	if err != nil {
		return err // the logs stay
	}
	if asJSON {
		err = json.NewEncoder(os.Stdout).Encode(report)
	} else {
		err = report.Write(os.Stdout)
	}
	if n := report.Wrong(); n > 0 {
		return errors.Join(err, fmt.Errorf("%d things went wrong; the logs are in %s", n, cfg.Dir))
	}
	return errors.Join(err, os.RemoveAll(cfg.Dir))
}
