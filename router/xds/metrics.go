package xds

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Why a client, or one of its names, was refused.
const (
	refusedStreams = "streams"
	refusedNames   = "names"
	refusedName    = "name"
	refusedNode    = "node"
	refusedType    = "type"
)

// metrics are the door's. Labels are kinds of resource and results; clients are
// in none.
type metrics struct {
	responses, answers, refused *prometheus.CounterVec
	dropped, laggards           prometheus.Counter
}

func newMetrics(reg *prometheus.Registry, a *audience) *metrics {
	f := promauto.With(reg)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "buddyring_router_xds_" + name, Help: help}, labels)
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "buddyring_router_xds_" + name, Help: help})
	}
	gauge := func(name, help string, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "buddyring_router_xds_" + name, Help: help}, value)
	}
	gauge("streams", "xDS clients that are connected.", func() float64 { all, _ := a.count(); return float64(all) })
	gauge("clients_rejecting", "xDS clients that rejected what they were last sent, and go on with what they had.",
		func() float64 { _, rejecting := a.count(); return float64(rejecting) })
	return &metrics{
		responses: counters("responses_total", "Responses to xDS clients, by kind: lds, rds, cds or eds.", "kind"),
		answers: counters("answers_total",
			"What xDS clients said to responses, by kind and by result: ack or nack.", "kind", "result"),
		refused: counters("refused_total",
			"What was refused to xDS clients, by the limit: streams, names, name, node or type.", "limit"),
		dropped: counter("dropped_total", "xDS clients that were dropped because they did not read, or neither confirmed nor rejected what they were sent."),
		laggards: counter("laggards_total",
			"Times that an xDS client did not confirm a change in 2 s and was not waited for any longer."),
	}
}

func (m *metrics) refuse(limit string) { m.refused.WithLabelValues(limit).Inc() }

// kindOf is the short name of a type, "" if it is not served.
func kindOf(url string) string {
	for _, k := range kinds() {
		if k.url == url {
			return k.name
		}
	}
	return ""
}
