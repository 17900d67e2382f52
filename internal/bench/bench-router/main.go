// Command bench-router measures a router and prints its figures beside their
// targets.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

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
	only := flag.String("only", "", "run these only, as R1,R2")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	var rows []bench.Row
	if !*asJSON {
		fmt.Print("| # | experiment | target | measured | |\n| --- | --- | --- | --- | --- |\n")
	}
	for _, e := range bench.All() {
		if *only != "" && !strings.Contains(","+*only+",", ","+e.ID+",") {
			continue
		}
		began := time.Now()
		some, err := e.Run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", e.ID, err)
		}
		rows = append(rows, some...)
		fmt.Fprintf(os.Stderr, "%s took %v\n", e.ID, time.Since(began).Round(100*time.Millisecond))
		if *asJSON {
			continue
		}
		for _, r := range some {
			fmt.Printf("| %s | %s | %s | %s | %s |\n", r.ID, r.Experiment, r.Target, r.Measured, mark(r))
		}
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(rows)
	}
	return nil
}

func mark(r bench.Row) string {
	if r.Met {
		return "met"
	}
	return "missed"
}
