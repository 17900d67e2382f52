package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// seedMark stands for the seed in Config.Command.
const seedMark = "SEED"

// Series makes experiments one after the other, each with the next seed and in a
// folder of its own below cfg.Dir, and adds up what came of them. The folders of
// those in which something went wrong stay.
func Series(ctx context.Context, cfg Config, runs int) (total Report, err error) {
	for i := range runs {
		one := cfg
		one.Seed += uint64(i)
		one.Dir = filepath.Join(cfg.Dir, fmt.Sprint("seed-", one.Seed))
		one.Command = strings.ReplaceAll(cfg.Command, seedMark, fmt.Sprint(one.Seed))
		if err := os.Mkdir(one.Dir, 0o700); err != nil {
			return total, fmt.Errorf("make folder: %w", err)
		}
		_, _ = fmt.Fprintf(cfg.Progress, "experiment %d of %d: %s\n", i+1, runs, one.Command)
		report, err := Run(ctx, one)
		if err != nil {
			_ = report.Write(cfg.Progress)
			return total, fmt.Errorf("%w\nlogs and history: %s\nagain: %s", err, one.Dir, one.Command)
		}
		if n := report.Wrong(); n > 0 {
			_, _ = fmt.Fprintf(cfg.Progress, "%d things went wrong\nlogs and history: %s\nagain: %s\n", n, one.Dir, one.Command)
		} else if err := os.RemoveAll(one.Dir); err != nil {
			return total, fmt.Errorf("remove folder: %w", err)
		}
		if i == 0 {
			total = report
		} else {
			total.Add(report)
		}
	}
	return total, nil
}
