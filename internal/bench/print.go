package bench

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Choice is what to run and how to print it.
type Choice struct {
	// Only names experiments, separated by commas; empty for all.
	Only string
	JSON bool
}

// Flags defines the flags of a command whose experiments have such names.
func (c *Choice) Flags(flags *flag.FlagSet, names string) {
	flags.StringVar(&c.Only, "only", "", "run these only, as "+names)
	flags.BoolVar(&c.JSON, "json", false, "print JSON")
}

// Print runs the chosen experiments and prints their figures beside their targets,
// those of each as soon as it is done, or as JSON at the end.
func Print(ctx context.Context, out io.Writer, all []Experiment, c Choice) error {
	rows := []Row{}
	if !c.JSON {
		if _, err := fmt.Fprint(out, "| # | experiment | target | measured | |\n| --- | --- | --- | --- | --- |\n"); err != nil {
			return err
		}
	}
	for _, e := range all {
		if c.Only != "" && !strings.Contains(","+c.Only+",", ","+e.ID+",") {
			continue
		}
		began := time.Now()
		some, err := e.Run(ctx)
		rows = append(rows, some...)
		if !c.JSON {
			for _, r := range some {
				if _, err := fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", r.ID, r.Experiment, r.Target, r.Measured, mark(r)); err != nil {
					return err
				}
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.ID, err)
		}
		fmt.Fprintf(os.Stderr, "%s took %v\n", e.ID, time.Since(began).Round(100*time.Millisecond))
	}
	if c.JSON {
		return json.NewEncoder(out).Encode(rows)
	}
	return nil
}

func mark(r Row) string {
	if r.Met {
		return "met"
	}
	return "missed"
}
