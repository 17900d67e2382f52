package server

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// setting is one field of PoolSettings, as the contract and as the vocabulary
// have it.
type setting struct {
	path string
	// isSet reports whether a message has it.
	isSet func(*pb.PoolSettings) bool
	// parse returns what it changes; member.CheckSettings knows the limits.
	parse func(field string, in *pb.PoolSettings) (func(*member.Settings), error)
	show  func(*pb.PoolSettings, *member.Settings)
}

// settings lists all of them.
func settings() []setting {
	return []setting{
		{
			"mode",
			func(in *pb.PoolSettings) bool { return in.GetMode() != pb.Mode_MODE_UNSPECIFIED },
			func(field string, in *pb.PoolSettings) (func(*member.Settings), error) {
				mode, err := parseEnum(field, in.GetMode(), member.ModePaused)
				return func(s *member.Settings) { s.Mode = mode }, err
			},
			func(out *pb.PoolSettings, s *member.Settings) { out.Mode = toMode(s.Mode) },
		},
		durationSetting("probe_interval",
			func(p *pb.PoolSettings) **durationpb.Duration { return &p.ProbeInterval },
			func(s *member.Settings) *time.Duration { return &s.ProbeInterval }),
		durationSetting("stall_tolerance",
			func(p *pb.PoolSettings) **durationpb.Duration { return &p.StallTolerance },
			func(s *member.Settings) *time.Duration { return &s.StallTolerance }),
		durationSetting("removal_grace",
			func(p *pb.PoolSettings) **durationpb.Duration { return &p.RemovalGrace },
			func(s *member.Settings) *time.Duration { return &s.RemovalGrace }),
		durationSetting("hold_down",
			func(p *pb.PoolSettings) **durationpb.Duration { return &p.HoldDown },
			func(s *member.Settings) *time.Duration { return &s.HoldDown }),
		durationSetting("hold_down_max",
			func(p *pb.PoolSettings) **durationpb.Duration { return &p.HoldDownMax },
			func(s *member.Settings) *time.Duration { return &s.HoldDownMax }),
		durationSetting("hold_down_loss",
			func(p *pb.PoolSettings) **durationpb.Duration { return &p.HoldDownLoss },
			func(s *member.Settings) *time.Duration { return &s.HoldDownLoss }),
		numberSetting("brake_least",
			func(p *pb.PoolSettings) **uint32 { return &p.BrakeLeast },
			func(s *member.Settings) *int { return &s.BrakeLeast }),
		numberSetting("brake_percent",
			func(p *pb.PoolSettings) **uint32 { return &p.BrakePercent },
			func(s *member.Settings) *int { return &s.BrakePercent }),
		numberSetting("brake_rack_percent",
			func(p *pb.PoolSettings) **uint32 { return &p.BrakeRackPercent },
			func(s *member.Settings) *int { return &s.BrakeRackPercent }),
		numberSetting("brake_zone_percent",
			func(p *pb.PoolSettings) **uint32 { return &p.BrakeZonePercent },
			func(s *member.Settings) *int { return &s.BrakeZonePercent }),
		durationSetting("brake_window",
			func(p *pb.PoolSettings) **durationpb.Duration { return &p.BrakeWindow },
			func(s *member.Settings) *time.Duration { return &s.BrakeWindow }),
		numberSetting("floor_percent",
			func(p *pb.PoolSettings) **uint32 { return &p.FloorPercent },
			func(s *member.Settings) *int { return &s.FloorPercent }),
		numberSetting("held_percent",
			func(p *pb.PoolSettings) **uint32 { return &p.HeldPercent },
			func(s *member.Settings) *int { return &s.HeldPercent }),
	}
}

// durationSetting is a setting that is a length of time: of and at point to it.
func durationSetting(
	path string, of func(*pb.PoolSettings) **durationpb.Duration, at func(*member.Settings) *time.Duration,
) setting {
	return setting{
		path,
		func(in *pb.PoolSettings) bool { return in != nil && *of(in) != nil },
		func(field string, in *pb.PoolSettings) (func(*member.Settings), error) {
			var set *durationpb.Duration
			if in != nil {
				set = *of(in)
			}
			d, err := parseSet(field, set)
			return func(s *member.Settings) { *at(s) = d }, err
		},
		func(out *pb.PoolSettings, s *member.Settings) { *of(out) = durationpb.New(*at(s)) },
	}
}

// numberSetting is a setting that is a number: of and at point to it.
func numberSetting(path string, of func(*pb.PoolSettings) **uint32, at func(*member.Settings) *int) setting {
	return setting{
		path,
		func(in *pb.PoolSettings) bool { return in != nil && *of(in) != nil },
		func(field string, in *pb.PoolSettings) (func(*member.Settings), error) {
			if in == nil || *of(in) == nil {
				return nil, member.Invalid(field, "must be set")
			}
			n := int(**of(in))
			return func(s *member.Settings) { *at(s) = n }, nil
		},
		func(out *pb.PoolSettings, s *member.Settings) {
			n := toCount(*at(s))
			*of(out) = &n
		},
	}
}

func toSettings(s member.Settings) *pb.PoolSettings {
	out := &pb.PoolSettings{}
	for _, f := range settings() {
		f.show(out, &s)
	}
	return out
}

// settingsEdit replaces fields of a pool's settings.
type settingsEdit = func(member.Settings) (member.Settings, error)

// parseSettingsEdit parses the settings that the mask names, or with an empty
// mask those that are set.
func parseSettingsEdit(in *pb.PoolSettings, mask *fieldmaskpb.FieldMask) (settingsEdit, error) {
	paths := mask.GetPaths()
	if len(paths) == 0 {
		paths = setFields(in)
	}
	if len(paths) == 0 {
		return nil, member.Invalid("settings", "must have at least one field")
	}
	edits := make([]func(*member.Settings), len(paths))
	for i, path := range paths {
		edit, err := parseSetting(in, path)
		if err != nil {
			return nil, err
		}
		edits[i] = edit
	}
	return func(present member.Settings) (member.Settings, error) {
		for _, edit := range edits {
			edit(&present)
		}
		return present, member.CheckSettings("settings", present)
	}, nil
}

func setFields(in *pb.PoolSettings) []string {
	var paths []string
	for _, f := range settings() {
		if f.isSet(in) {
			paths = append(paths, f.path)
		}
	}
	return paths
}

func parseSetting(in *pb.PoolSettings, path string) (func(*member.Settings), error) {
	for _, f := range settings() {
		if f.path == path {
			return f.parse("settings."+path, in)
		}
	}
	return nil, member.Invalid("update_mask", "%q is not a field of settings", path)
}

// parseNewSettings parses the settings of a new pool: defaults where unset.
func parseNewSettings(in *pb.PoolSettings) (member.Settings, error) {
	if len(setFields(in)) == 0 {
		return member.DefaultSettings(), nil
	}
	edit, err := parseSettingsEdit(in, nil)
	if err != nil {
		return member.Settings{}, err
	}
	return edit(member.DefaultSettings())
}
