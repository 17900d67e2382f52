package server

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
)

// A leader that hears from the database of its successor has no database that
// fails.
func TestSuccessorIsNoFailureOfTheDatabase(t *testing.T) {
	t.Parallel()
	for err, fails := range map[error]bool{
		nil: false, member.ErrFenced: false, member.ErrStale: false, member.ErrUnavailable: true,
	} {
		raised := newAlarms(slog.New(slog.DiscardHandler), prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "active"}, []string{"name", "pool"}))
		h := &health{alarms: newOwnAlarms(raised), up: prometheus.NewGauge(prometheus.GaugeOpts{Name: "up"})}
		if err != nil {
			err = fmt.Errorf("renew lead: %w", err)
		}
		h.renewed(err, time.Now())
		if got := len(raised.held) > 0; got != fails || (h.error() != nil) != fails {
			t.Errorf("%v: alarm %v, error %v", err, got, h.error())
		}
	}
}
