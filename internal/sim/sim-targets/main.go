// Command sim-targets runs the simulations behind the figures of
// docs/measurements.md and prints them beside their targets.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/sim/experiment"
)

func main() { os.Exit(run()) }

func run() int {
	effort := flag.Int("effort", 1, "multiply the number of seeds; 1 takes minutes, 50 a night")
	only := flag.String("only", "", "run these only, as D1,D5")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	var rows []experiment.Row
	if !*asJSON {
		fmt.Print("| # | experiment | target | measured | | runs |\n| --- | --- | --- | --- | --- | --- |\n")
	}
	for _, e := range experiment.All() {
		if *only != "" && !strings.Contains(","+*only+",", ","+e.ID+",") {
			continue
		}
		began := time.Now()
		some, err := e.Run(experiment.Effort(*effort))
		if err != nil {
			fmt.Fprintln(os.Stderr, "sim-targets:", err)
			return 1
		}
		rows = append(rows, some...)
		fmt.Fprintf(os.Stderr, "%s took %v\n", e.ID, time.Since(began).Round(100*time.Millisecond))
		if *asJSON {
			continue
		}
		for _, r := range some {
			fmt.Printf("| %s | %s | %s | %s | %s | %d |\n", r.ID, r.Experiment, r.Target, r.Measured, mark(r), r.Runs)
		}
	}
	if *asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(rows); err != nil {
			fmt.Fprintln(os.Stderr, "sim-targets:", err)
			return 1
		}
	}
	return verdict(rows)
}

func mark(r experiment.Row) string {
	switch {
	case r.Met && r.Unproven:
		return "none seen"
	case r.Met:
		return "met"
	case r.Safety:
		return "FAILED"
	}
	return "missed"
}

// verdict names what was missed, with the commands that show it, and returns the
// exit status: only safety fails.
func verdict(rows []experiment.Row) int {
	code := 0
	for _, r := range rows {
		if r.Met {
			continue
		}
		if r.Safety {
			code = 1
		}
		fmt.Fprintf(os.Stderr, "%s: %s %s: %s\n", mark(r), r.ID, r.Experiment, r.Measured)
		if r.Replay != "" {
			fmt.Fprintf(os.Stderr, "  %s\n", r.Replay)
		}
	}
	return code
}
