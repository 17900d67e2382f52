// Command bench-coordinator measures a coordinator and prints its figures beside
// their targets.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/buddyring/buddyring/internal/bench"
	"github.com/buddyring/buddyring/internal/bench/coordbench"
)

func main() { os.Exit(status()) }

func status() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o coordbench.Options
	var c bench.Choice
	c.Flags(flag.CommandLine, "S4,S5")
	flag.StringVar(&o.Bin, "bin", "bin", "folder of the programs")
	flag.IntVar(&o.Agents, "agents", 10_000, "number of agents")
	flag.IntVar(&o.Subscribers, "subscribers", 1_000, "number of routers")
	flag.Parse()
	if err := bench.Print(ctx, os.Stdout, coordbench.All(o), c); err != nil {
		fmt.Fprintln(os.Stderr, "bench-coordinator:", err)
		return 1
	}
	return 0
}
