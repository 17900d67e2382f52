package dns

import (
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of the DNS door. No label comes from a question.
type metrics struct {
	answers     *prometheus.CounterVec
	truncated   prometheus.Counter
	limited     prometheus.Counter
	ignored     prometheus.Counter
	refused     prometheus.Counter
	connections prometheus.Gauge
}

func newMetrics(reg *prometheus.Registry) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "buddyring_router_dns_" + name, Help: help})
	}
	return &metrics{
		answers: f.NewCounterVec(prometheus.CounterOpts{
			Name: "buddyring_router_dns_answers_total", Help: "DNS questions answered, by transport and response code.",
		}, []string{"transport", "rcode"}),
		truncated: counter("truncated_total", "UDP answers that did not fit: the client must ask over TCP."),
		limited:   counter("limited_total", "UDP answers that were cut because their source asks too much."),
		ignored:   counter("ignored_total", "Packets that were no question."),
		refused:   counter("connections_refused_total", "TCP connections that were closed because there were too many."),
		connections: f.NewGauge(prometheus.GaugeOpts{
			Name: "buddyring_router_dns_connections", Help: "Open TCP connections of the DNS door.",
		}),
	}
}

func (m *metrics) answered(over transport, reply *dns.Msg) {
	m.answers.WithLabelValues(over.String(), dns.RcodeToString[reply.Rcode]).Inc()
	if reply.Truncated {
		m.truncated.Inc()
	}
}
