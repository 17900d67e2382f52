// Package simulate is the command that tries a pool, its settings and its
// faults out in virtual time, with the code that decides in production. It is a
// thin front on package sim.
package simulate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/internal/sim"
)

// errBad is the failure of a simulation, which the report has explained.
var errBad = errors.New("a healthy server was removed, a dead one was not, or the ring broke; the report says which")

// Command returns the simulator as a command of buddyctl.
func Command() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Try settings and faults out on a simulated pool",
		Long: "simulate runs a pool of up to " + fmt.Sprint(sim.MaxServers) + " servers in virtual time, with the code that decides in production,\n" +
			"does to it what the flags say, and tells what came of it. Flags combine. Nothing real is touched.\n\n" +
			"What happens: the pool settles, then time counts for --duration. Deaf, lying, starved and lossy servers are so from\n" +
			"the beginning; crashes and other blows come after a quarter of the time, at the latest after 10 s.\n\n" +
			"A --fault is anything else: a kind (" + kinds() + ")\n" +
			"and KEY=VALUE for whom it strikes (count, share, adjacent, watchers, zone, rack, servers), when (at, within, for,\n" +
			"times, every, same) and how (loss, lie, clock), as in \"unplug count=20 at=1s for=400ms times=50 every=1s\".\n\n" +
			"The same seed gives the same run. Exit status: 0 when no healthy server was removed and every dead one was, else 1.",
		Example: "  buddyctl simulate --servers 1000 --crash 10\n" +
			"  buddyctl simulate --servers 1000 --crash-adjacent 100 --set brake_percent=100 --seeds 30\n" +
			"  buddyctl simulate --servers 200 --loss 5% --deaf 1 --liar 1 --duration 10m",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := f.options()
			if err != nil {
				return err
			}
			if out := cmd.Flag("output"); out != nil && out.Value.String() == "json" {
				f.json = true
			}
			return f.run(o, cmd.OutOrStdout())
		},
	}
	f.bind(cmd.Flags())
	return cmd
}

func (f *flags) run(o sim.Options, w io.Writer) error {
	results, err := sim.RunSeeds(o, f.seeds, nil)
	if err != nil {
		return err
	}
	r := newReport(o, results)
	if f.json {
		if err := json.NewEncoder(w).Encode(r); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	} else if err := r.write(w); err != nil {
		return err
	}
	if err := f.replay(o, r); err != nil {
		return err
	}
	if !r.Good {
		return errBad
	}
	return nil
}

// replay runs the first failing seed again, or the first one, to write down what
// happens.
func (f *flags) replay(o sim.Options, r report) error {
	if f.trace == "" && f.script == "" {
		return nil
	}
	o.Seed = r.worstSeed()
	log, err := sim.Record(o)
	if err != nil {
		return err
	}
	if err := save(f.trace, log.Write); err != nil {
		return err
	}
	return save(f.script, func(w io.Writer) error { return log.WriteScript(w, o) })
}

// save writes a file, if it has a name.
func save(path string, write func(io.Writer) error) (err error) {
	if path == "" {
		return nil
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}
