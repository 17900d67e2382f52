package web

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of the HTTP door. No label comes from a request.
type metrics struct {
	requests *prometheus.CounterVec
	waiters  prometheus.Gauge
}

func newMetrics(reg *prometheus.Registry) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "buddyring_router_http_requests_total",
			Help: "Requests of the HTTP door, by what was asked for (pools, pool, prometheus, other) and class of status.",
		}, []string{"what", "status"}),
		waiters: f.NewGauge(prometheus.GaugeOpts{
			Name: "buddyring_router_http_waiters", Help: "Requests that wait for a change now.",
		}),
	}
}

// statusClass is "2xx" for 200.
func statusClass(code int) string { return strconv.Itoa(code/100) + "xx" }
