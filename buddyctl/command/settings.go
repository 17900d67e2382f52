package command

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// durationSettings are the settings of a pool that are lengths of time.
var durationSettings = [...]struct { //nolint:gochecknoglobals // a constant table
	flag, help string
	of         func(*coordinatorv1.PoolSettings) *durationpb.Duration
	set        func(*coordinatorv1.PoolSettings, *durationpb.Duration)
}{
	{
		"probe-interval", "how often each watcher probes; 100ms to 10s",
		(*coordinatorv1.PoolSettings).GetProbeInterval,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.ProbeInterval = d },
	},
	{
		"stall-tolerance", "how long probes must fail before a removal; 100ms to 60s",
		(*coordinatorv1.PoolSettings).GetStallTolerance,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.StallTolerance = d },
	},
	{
		"removal-grace", "delays removals, never the suspect mark; up to 10m",
		(*coordinatorv1.PoolSettings).GetRemovalGrace,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.RemovalGrace = d },
	},
	{
		"hold-down", "the first hold-down of a server that returns after a crash; up to 1h",
		(*coordinatorv1.PoolSettings).GetHoldDown,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.HoldDown = d },
	},
	{
		"hold-down-max", "the longest hold-down; up to 24h",
		(*coordinatorv1.PoolSettings).GetHoldDownMax,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.HoldDownMax = d },
	},
	{
		"hold-down-loss", "the first hold-down after loss, or of a server that returns without having rebooted; up to 1h",
		(*coordinatorv1.PoolSettings).GetHoldDownLoss,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.HoldDownLoss = d },
	},
	{
		"brake-window", "how far back the brake counts suspects and removals; 1s to 1h",
		(*coordinatorv1.PoolSettings).GetBrakeWindow,
		func(s *coordinatorv1.PoolSettings, d *durationpb.Duration) { s.BrakeWindow = d },
	},
}

// numberSettings are the settings of a pool that are numbers.
var numberSettings = [...]struct { //nolint:gochecknoglobals // a constant table
	flag, help string
	of         func(*coordinatorv1.PoolSettings) *uint32
	set        func(*coordinatorv1.PoolSettings, *uint32)
}{
	{
		"brake-least", "how many suspects the brake lets pass at least",
		func(s *coordinatorv1.PoolSettings) *uint32 { return s.BrakeLeast },
		func(s *coordinatorv1.PoolSettings, n *uint32) { s.BrakeLeast = n },
	},
	{
		"brake-percent", "how many suspects the brake lets pass, of the pool; 100 switches it off",
		func(s *coordinatorv1.PoolSettings) *uint32 { return s.BrakePercent },
		func(s *coordinatorv1.PoolSettings, n *uint32) { s.BrakePercent = n },
	},
	{
		"brake-rack-percent", "up to which share of the pool the largest rack may go at once",
		func(s *coordinatorv1.PoolSettings) *uint32 { return s.BrakeRackPercent },
		func(s *coordinatorv1.PoolSettings, n *uint32) { s.BrakeRackPercent = n },
	},
	{
		"brake-zone-percent", "how many suspects the brake lets pass, of a zone of six and more; 100 switches it off",
		func(s *coordinatorv1.PoolSettings) *uint32 { return s.BrakeZonePercent },
		func(s *coordinatorv1.PoolSettings, n *uint32) { s.BrakeZonePercent = n },
	},
	{
		"floor-percent", "how many members may be lost and not be back, of the reference size; 100 switches the floor off",
		func(s *coordinatorv1.PoolSettings) *uint32 { return s.FloorPercent },
		func(s *coordinatorv1.PoolSettings, n *uint32) { s.FloorPercent = n },
	},
	{
		"held-percent", "how many members may be held at once, of the pool",
		func(s *coordinatorv1.PoolSettings) *uint32 { return s.HeldPercent },
		func(s *coordinatorv1.PoolSettings, n *uint32) { s.HeldPercent = n },
	},
}

// settingsFlags are the flags of a pool's settings.
type settingsFlags struct {
	mode      string
	durations [len(durationSettings)]time.Duration
	numbers   [len(numberSettings)]uint32
}

func (s *settingsFlags) define(cmd *cobra.Command) {
	modes := coordinatorv1.Mode(0).Descriptor()
	cmd.Flags().StringVar(&s.mode, "mode", "",
		"what happens with a confirmed verdict: "+strings.Join(output.Names(modes), ", "))
	complete(cmd, "mode", enum(modes))
	for i, d := range durationSettings {
		cmd.Flags().DurationVar(&s.durations[i], d.flag, 0, d.help)
	}
	for i, n := range numberSettings {
		cmd.Flags().Uint32Var(&s.numbers[i], n.flag, 0, n.help)
	}
}

// parse returns the settings whose flags are set, and their field names.
func (s *settingsFlags) parse(cmd *cobra.Command) (*coordinatorv1.PoolSettings, []string, error) {
	settings := &coordinatorv1.PoolSettings{}
	var fields []string
	if cmd.Flags().Changed("mode") {
		n, err := output.ParseName("mode", settings.Mode.Descriptor(), s.mode)
		if err != nil {
			return nil, nil, err
		}
		settings.Mode = coordinatorv1.Mode(n)
		fields = append(fields, "mode")
	}
	for i, d := range durationSettings {
		if cmd.Flags().Changed(d.flag) {
			d.set(settings, durationpb.New(s.durations[i]))
			fields = append(fields, fieldOf(d.flag))
		}
	}
	for i, n := range numberSettings {
		if cmd.Flags().Changed(n.flag) {
			n.set(settings, &s.numbers[i])
			fields = append(fields, fieldOf(n.flag))
		}
	}
	return settings, fields, nil
}

func fieldOf(flag string) string { return strings.ReplaceAll(flag, "-", "_") }
