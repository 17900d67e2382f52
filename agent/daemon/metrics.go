package daemon

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/agent/health"
	"github.com/buddyring/buddyring/agent/prober"
	"github.com/buddyring/buddyring/internal/observe"
)

// metrics are the agent's. No label names a server.
type metrics struct {
	probes     *prometheus.CounterVec
	late       prometheus.Counter
	rtt        prometheus.Histogram
	sights     *prometheus.GaugeVec
	selfScore  prometheus.Gauge
	reports    *prometheus.CounterVec
	answers    *prometheus.CounterVec
	connects   *prometheus.CounterVec
	echoes     prometheus.Counter
	connected  prometheus.Gauge
	sessions   *prometheus.CounterVec
	digests    prometheus.Counter
	missedAcks prometheus.Counter
	stale      prometheus.Counter
	unsaved    prometheus.Gauge
	saveErrors prometheus.Counter
	checks     *prometheus.GaugeVec
	serviceBad prometheus.Gauge
	checkRuns  *prometheus.CounterVec
	checkTime  prometheus.Histogram
	removals   prometheus.Counter
	drained    prometheus.Gauge
}

func newMetrics(reg *prometheus.Registry) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "buddyring_agent_" + name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "buddyring_agent_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "buddyring_agent_" + name, Help: help})
	}
	m := &metrics{
		probes: counters("probes_total",
			"Probes that have ended, by result: replied, lost, or not_sent for trouble of this host.", "result"),
		late: counter("probes_late_total",
			"Probes whose end this process noticed too late to judge a loss; it wants for CPU."),
		rtt: prometheus.NewHistogram(observe.Seconds("buddyring_agent_probe_rtt_seconds",
			"Round trips of answered probes.", .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .2)),
		sights: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "buddyring_agent_subjects",
			Help: "Servers that this agent watches, by what it sees: up, down, cannot_judge or unknown.",
		}, []string{"sight"}),
		selfScore: gauge("self_score",
			"How many kinds of trouble this agent sees in itself; its doubts count only at 0."),
		reports: counters("reports_total", "Changes of sight, and of many lost probes, that were reported to a coordinator.", "sight"),
		answers: counters("answers_total", "Final answers to a coordinator's questions, by sight.", "sight"),
		connects: counters("connects_total",
			"TCP connects for a coordinator's questions, all addresses of one counted once, by result: answered, unanswered, or not_sent.", "result"),
		echoes: counter("echoes_total", "Challenges of a coordinator that were answered."),
		connected: gauge("session_up",
			"1 while a coordinator has accepted this agent's session, otherwise 0."),
		sessions: counters("sessions_total",
			"Attempts at a session with a coordinator that have ended, by how: lost after it was accepted, refused, or failed before.", "end"),
		digests:    counter("digests_total", "Digests sent to a coordinator."),
		missedAcks: counter("digest_acks_missed_total", "Digests without an acknowledgement within 2 s."),
		stale:      counter("stale_messages_total", "Messages of a coordinator that were ignored for a lower epoch."),
		unsaved: gauge("state_unsaved",
			"1 while the state directory cannot be written, so that a restart would begin with an older state; otherwise 0."),
		saveErrors: counter("state_save_errors_total", "Failed attempts to write the state directory."),
		checks: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "buddyring_agent_checks",
			Help: "Checks of the server's service, by what they find: up, down, or unknown before the first results.",
		}, []string{"state"}),
		serviceBad: gauge("check_service_down",
			"1 while the checks say that the server's service is down, otherwise 0."),
		checkRuns: counters("check_runs_total", "Runs of checks that have ended, or not in time, by result: passed, failed, or timeout.", "result"),
		checkTime: prometheus.NewHistogram(observe.Seconds("buddyring_agent_check_seconds",
			"How long checks took that have ended in time.", .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1)),
		removals: counter("removals_total",
			"Times this agent learned that others had taken its server out of the pool."),
		drained: gauge("server_drained",
			"1 while an operator drains the server, so that it gets no new work, otherwise 0."),
	}
	reg.MustRegister(m.probes, m.late, m.rtt, m.sights, m.selfScore, m.reports, m.answers, m.connects, m.echoes, m.connected,
		m.sessions, m.digests, m.missedAcks, m.stale, m.unsaved, m.saveErrors,
		m.checks, m.serviceBad, m.checkRuns, m.checkTime, m.removals, m.drained)
	return m
}

func (m *metrics) stand(s standing) {
	drained := 0.0
	if s.drained {
		drained = 1
	}
	m.drained.Set(drained)
}

func (m *metrics) probed(r prober.Result) {
	if r.Late {
		m.late.Inc()
	}
	switch r.Outcome {
	case prober.Replied:
		m.probes.WithLabelValues("replied").Inc()
		if !r.Late {
			m.rtt.Observe(r.RTT.Seconds())
		}
	case prober.Lost:
		m.probes.WithLabelValues("lost").Inc()
	case prober.NotSent:
		m.probes.WithLabelValues("not_sent").Inc()
	}
}

func (m *metrics) saw(s sighting) {
	count := map[detector.Sight]int{}
	for _, v := range s.views {
		count[v.Evidence.Sight]++
	}
	for _, sight := range []detector.Sight{detector.Unknown, detector.Up, detector.Down, detector.CannotJudge} {
		m.sights.WithLabelValues(sightName(sight)).Set(float64(count[sight]))
	}
	m.selfScore.Set(float64(s.score))
}

func sightName(s detector.Sight) string {
	switch s {
	case detector.Up:
		return "up"
	case detector.Down:
		return "down"
	case detector.CannotJudge:
		return "cannot_judge"
	case detector.Unknown:
	}
	return "unknown"
}

func (m *metrics) saved(err error) {
	if err == nil {
		m.unsaved.Set(0)
		return
	}
	m.unsaved.Set(1)
	m.saveErrors.Inc()
}

func (m *metrics) checked(took time.Duration, err error) {
	result := "passed"
	switch {
	case errors.Is(err, errNoAnswer), errors.Is(err, errNotEnding):
		m.checkRuns.WithLabelValues("timeout").Inc()
		return
	case err != nil:
		result = "failed"
	}
	m.checkRuns.WithLabelValues(result).Inc()
	m.checkTime.Observe(took.Seconds())
}

func (m *metrics) service(checks map[health.State]int, s health.State) {
	for _, state := range []health.State{health.Unknown, health.Up, health.Down} {
		m.checks.WithLabelValues(serviceState(state)).Set(float64(checks[state]))
	}
	bad := 0.0
	if s == health.Down {
		bad = 1
	}
	m.serviceBad.Set(bad)
}
