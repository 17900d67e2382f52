package config

import (
	"context"
	"log/slog"
	"os"
)

// OnHangup calls reload for each of the signals until ctx ends, and logs how it
// went. A reload that fails must have changed nothing.
func OnHangup(ctx context.Context, signals <-chan os.Signal, log *slog.Logger, reload func(context.Context) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		if err := reload(ctx); err != nil {
			log.WarnContext(ctx, "configuration not reloaded", "error", err)
			continue
		}
		log.InfoContext(ctx, "configuration reloaded")
	}
}
