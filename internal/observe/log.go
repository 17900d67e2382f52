package observe

import (
	"io"
	"log/slog"

	"github.com/buddyring/buddyring/internal/member"
)

// LogConfig configures a logger. The zero value is text at level info.
type LogConfig struct {
	// Format is "text" or "json".
	Format string
	// Level is "debug", "info", "warn" or "error".
	Level string
	// Var, if not nil, is given the level, and changes it from then on.
	Var *slog.LevelVar
}

// NewLogger returns a logger that writes to w and limits repeated lines as
// Limited does. Errors name the flag.
func NewLogger(w io.Writer, cfg LogConfig) (*slog.Logger, error) {
	var level slog.Level
	if cfg.Level != "" {
		if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
			return nil, member.Invalid("log-level", "%q is not one of debug, info, warn and error", cfg.Level)
		}
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Var != nil {
		cfg.Var.Set(level)
		opts.Level = cfg.Var
	}
	switch cfg.Format {
	case "", "text":
		return slog.New(Limited(slog.NewTextHandler(w, opts))), nil
	case "json":
		return slog.New(Limited(slog.NewJSONHandler(w, opts))), nil
	default:
		return nil, member.Invalid("log-format", "%q is neither text nor json", cfg.Format)
	}
}
