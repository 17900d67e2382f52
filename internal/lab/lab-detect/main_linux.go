// Command lab-detect makes experiments with real programs and real pings in
// network namespaces, and prints the figures: how soon a crash is noticed, that
// nothing else removes anybody, and what a pool at rest costs.
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
	"strings"
	"syscall"
	"time"

	"github.com/buddyring/buddyring/internal/lab/detect"
	"github.com/buddyring/buddyring/internal/netlab"
)

func main() { os.Exit(run()) }

// options are the command line.
type options struct {
	pool           detect.PoolConfig
	experiment     string
	crashes        int
	rounds, busy   int
	faults         string
	victims, times int
	lasts          time.Duration
	json           bool
}

func run() int {
	var o options
	flag.StringVar(&o.pool.Bin, "bin", "bin", "folder of the programs")
	flag.IntVar(&o.pool.Servers, "n", 12, "size of the pool")
	flag.IntVar(&o.pool.Routers, "routers", 2, "number of routers")
	flag.StringVar(&o.experiment, "experiment", "crash", "crash, calm, cost or versus")
	flag.IntVar(&o.crashes, "crashes", 50, "crash and versus: number of crashes")
	flag.IntVar(&o.busy, "busy", 0, "crash: how many busy processes compete for the processors, to starve all others")
	flag.IntVar(&o.rounds, "rounds", 2, "versus: how often the two systems take turns")
	flag.StringVar(&o.faults, "faults", strings.Join(detect.FaultNames(), ","), "calm: the faults, one after the other")
	flag.IntVar(&o.victims, "victims", 0, "calm: how many servers each fault hits; 0 for its own number")
	flag.IntVar(&o.times, "times", 0, "calm: how often each fault is repeated; 0 for its own number")
	flag.DurationVar(&o.lasts, "for", 0, "calm: how long each fault lasts, 0 for its own time; cost: how long to measure, 0 for a minute")
	flag.BoolVar(&o.json, "json", false, "print JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := netlab.Enter(ctx, netlab.Entry{}, func(ctx context.Context) int {
		if err := measure(ctx, o); err != nil {
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

// report is what every experiment ends with.
type report interface{ Write(w io.Writer) error }

func measure(ctx context.Context, o options) (err error) {
	if o.pool.Dir, err = os.MkdirTemp("", "lab-detect-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.pool.Dir)) }()
	r, err := o.run(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	return r.Write(os.Stdout)
}

func (o options) run(ctx context.Context) (report, error) {
	var progress io.Writer = os.Stderr
	if o.json {
		progress = io.Discard
	}
	switch o.experiment {
	case "crash":
		return detect.Run(ctx, detect.Config{PoolConfig: o.pool, Crashes: o.crashes, Busy: o.busy, Progress: progress})
	case "calm":
		return detect.Calm(ctx, detect.CalmConfig{
			PoolConfig: o.pool, Faults: strings.Split(o.faults, ","), Victims: o.victims, Times: o.times, Lasts: o.lasts, Progress: progress,
		})
	case "cost":
		if o.lasts == 0 {
			o.lasts = time.Minute
		}
		return detect.Cost(ctx, detect.CostConfig{PoolConfig: o.pool, Lasts: o.lasts})
	case "versus":
		return detect.Versus(ctx, detect.VersusConfig{PoolConfig: o.pool, Crashes: o.crashes, Rounds: o.rounds, Progress: progress})
	}
	return nil, fmt.Errorf("there is no experiment %q", o.experiment)
}
