// Command chaos-leader kills, stops and replaces the leader of three real
// coordinators on a MariaDB or a Galera cluster while servers join and leave, judges the history of
// all that was asked and seen, and prints how long there was no leader and what
// went wrong.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/buddyring/buddyring/internal/chaos"
	"github.com/buddyring/buddyring/internal/wallclock"
)

func main() { os.Exit(run()) }

// options are what is not the experiment's own.
type options struct {
	chaos.Config

	runs   int
	asJSON bool
	judge  string
}

func run() int {
	var o options
	flags(&o)
	flag.Parse()
	if !o.Galera {
		o.Nodes, o.Hosts = 0, 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := measure
	if o.judge != "" {
		do = judge
	}
	if err := do(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "chaos-leader:", err)
		return 1
	}
	return 0
}

func flags(o *options) {
	flag.Uint64Var(&o.Seed, "seed", rand.Uint64N(1_000_000_000), "what the order of the faults, and all that is drawn, comes from") //nolint:gosec // a seed is no secret
	flag.IntVar(&o.runs, "runs", 1, "number of experiments, each with the next seed")
	flag.StringVar(&o.Bin, "bin", "bin", "folder of the programs")
	flag.IntVar(&o.Coordinators, "coordinators", 3, "number of coordinators")
	flag.IntVar(&o.Servers, "servers", 100, "number of scripted agents")
	flag.IntVar(&o.Watchers, "watchers", 4, "number of scripted routers")
	flag.IntVar(&o.Agents, "agents", 4, "number of real agents")
	flag.IntVar(&o.Routers, "routers", 2, "number of real routers, if there are real agents")
	flag.BoolVar(&o.Galera, "galera", false, "use a Galera cluster of three nodes")
	flag.IntVar(&o.Kills, "kills", 100, "how often the leader is killed")
	flag.IntVar(&o.Handovers, "handovers", 20, "how often it is told to stop")
	flag.IntVar(&o.Stops, "stops", 3, "how often it is stopped by SIGSTOP and continued")
	flag.IntVar(&o.Cuts, "cuts", 3, "how often it is cut off from the database")
	flag.IntVar(&o.Outages, "outages", 4, "how often the database is stopped, or killed, under a leader that is well")
	clocks := 0
	if wallclock.Known {
		clocks = 12
	}
	flag.IntVar(&o.Clocks, "clocks", clocks, "how often the wall clock of a program is set; on Linux on amd64")
	flag.IntVar(&o.Others, "others", 6, "how often a standby, a router or an agent is killed or stopped, in turns")
	flag.IntVar(&o.Nodes, "nodes", 12, "how often a node of the Galera cluster is harmed: killed, stopped, cut off or slowed down, in turns")
	flag.IntVar(&o.Slows, "slows", 6, "how often links between coordinators and database, or agents and routers, are slow, in turns")
	flag.IntVar(&o.Hosts, "hosts", 6, "how often the leader is killed together with the Galera node that it writes to")
	flag.DurationVar(&o.StopFor, "stop-for", 20*time.Second, "how long stops, cuts and outages last")
	flag.IntVar(&o.Crashes, "crashes", 50, "how often it is killed together with the database, while servers join")
	flag.IntVar(&o.Wave, "wave", 100, "how many servers join at once then")
	flag.BoolVar(&o.asJSON, "json", false, "print JSON")
	flag.StringVar(&o.judge, "judge", "", "judge a history that was written to this file, and do nothing else")
}

func judge(_ context.Context, o options) error {
	n, err := chaos.JudgeFile(o.judge, os.Stdout)
	if err == nil && n > 0 {
		err = fmt.Errorf("%d breaches", n)
	}
	return err
}

func measure(ctx context.Context, o options) (err error) {
	if o.Dir, err = os.MkdirTemp("", "chaos-leader-"); err != nil {
		return err
	}
	o.Command, o.Progress = command(), os.Stderr
	if o.asJSON {
		o.Progress = io.Discard
	}
	report, err := chaos.Series(ctx, o.Config, o.runs)
	if err != nil {
		return err // the logs stay
	}
	if o.asJSON {
		err = json.NewEncoder(os.Stdout).Encode(report)
	} else {
		err = report.Write(os.Stdout)
	}
	if n := report.Wrong(); n > 0 {
		return errors.Join(err, fmt.Errorf("%d things went wrong; logs and histories are in %s", n, o.Dir))
	}
	return errors.Join(err, os.Remove(o.Dir))
}

// command is that of one experiment with this one's settings.
func command() string {
	words := []string{"go run ./internal/chaos/chaos-leader --seed=SEED"}
	flag.Visit(func(f *flag.Flag) {
		if f.Name != "seed" && f.Name != "runs" && f.Name != "json" {
			words = append(words, fmt.Sprintf("--%s=%s", f.Name, f.Value))
		}
	})
	return strings.Join(words, " ")
}
