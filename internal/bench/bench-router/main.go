// Command bench-router measures a router and prints its figures beside their
// targets.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/buddyring/buddyring/internal/bench"
)

func main() { os.Exit(status()) }

func status() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-router:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context) error {
	if len(os.Args) == 3 && os.Args[1] == bench.ClientsArg {
		return bench.RunClients(ctx, os.Args[2], os.Stdin, os.Stdout)
	}
	var c bench.Choice
	c.Flags(flag.CommandLine, "R1,R2")
	flag.Parse()
	return bench.Print(ctx, os.Stdout, bench.All(), c)
}
