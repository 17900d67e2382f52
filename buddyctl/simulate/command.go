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

	"github.com/buddyring/buddyring/internal/member"
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
			"What happens: the pool settles, then time counts for --duration. Deaf, lying and starved servers are so from the\n" +
			"beginning; crashes, lossy servers and other blows come after a quarter of the time, at the latest after 10 s.\n\n" +
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

func (f *flags) run(o sim.Options, w io.Writer) (err error) {
	trace, err := create("trace", f.trace)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, trace.close()) }()
	script, err := create("script", f.script)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, script.close()) }()
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
	if err := replay(o, r, trace, script); err != nil {
		return err
	}
	if !r.Good {
		return errBad
	}
	return nil
}

// replay runs the first failing seed again, or the first one, to write down what
// happens.
func replay(o sim.Options, r report, trace, script record) error {
	if trace.file == nil && script.file == nil {
		return nil
	}
	o.Seed = r.worstSeed()
	log, err := sim.Record(o)
	if err != nil {
		return err
	}
	if trace.file != nil {
		if err := log.Write(trace.file); err != nil {
			return err
		}
	}
	if script.file != nil {
		return log.WriteScript(script.file, o)
	}
	return nil
}

// record is a file that a run is written to, if one was asked for.
type record struct{ file *os.File }

// create makes the file that a flag names, before the run: one that cannot be
// written is a mistake of the caller.
func create(flag, path string) (record, error) {
	if path == "" {
		return record{}, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return record{}, member.Invalid(flag, "%v", err)
	}
	return record{file}, nil
}

func (r record) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
