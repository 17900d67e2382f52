package rpc

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/internal/observe"
)

// calls counts the calls of one server, under the names that dashboards know.
// Servers on one registry have the same counters.
type calls struct {
	started, received, sent, handled *prometheus.CounterVec
	latency                          *prometheus.HistogramVec
	// methods are known before there are calls, by their full names.
	methods map[string]*method
}

// method is what is counted of one method, looked up once.
type method struct {
	full, service           string
	started, received, sent prometheus.Counter
	handled                 *prometheus.CounterVec
	latency                 prometheus.Observer
}

func newCalls(reg *prometheus.Registry) *calls {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		labels = append([]string{"grpc_type", "grpc_service", "grpc_method"}, labels...)
		return registered(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	return &calls{
		started:  counter("buddyring_grpc_server_started_total", "Calls that have begun."),
		handled:  counter("buddyring_grpc_server_handled_total", "Calls that have ended, by status.", "grpc_code"),
		received: counter("buddyring_grpc_server_msg_received_total", "Messages that were received."),
		sent:     counter("buddyring_grpc_server_msg_sent_total", "Messages that were sent."),
		latency: registered(reg, prometheus.NewHistogramVec(observe.Seconds("buddyring_grpc_server_handling_seconds",
			"Time from the start to the end of unary calls; streams are not in it.",
			.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5,
		), []string{"grpc_service", "grpc_method"})),
		methods: map[string]*method{},
	}
}

// registered returns the collector that the registry, if there is one, has: c, or
// an equal one of an earlier server.
func registered[C prometheus.Collector](reg *prometheus.Registry, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if twin, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := twin.ExistingCollector.(C); ok {
			return existing
		}
	}
	return c
}

// learn gets to know the methods of a server; all that is counted of them is 0
// and not missing before the first call.
func (c *calls) learn(services map[string]grpc.ServiceInfo) {
	for service, info := range services {
		for _, m := range info.Methods {
			c.methods["/"+service+"/"+m.Name] = c.method(service, m)
		}
	}
}

func (c *calls) method(service string, info grpc.MethodInfo) *method {
	labels := []string{kindOf(info), service, info.Name}
	m := &method{
		full: "/" + service + "/" + info.Name, service: service,
		started: c.started.WithLabelValues(labels...), received: c.received.WithLabelValues(labels...), sent: c.sent.WithLabelValues(labels...),
		handled: c.handled.MustCurryWith(prometheus.Labels{"grpc_type": labels[0], "grpc_service": service, "grpc_method": info.Name}),
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		m.handled.WithLabelValues(code.String())
	}
	if labels[0] == unaryKind {
		m.latency = c.latency.WithLabelValues(service, info.Name)
	}
	return m
}

// unaryKind is the kind of calls that are no streams.
const unaryKind = "unary"

func kindOf(m grpc.MethodInfo) string {
	switch {
	case m.IsClientStream && m.IsServerStream:
		return "bidi_stream"
	case m.IsClientStream:
		return "client_stream"
	case m.IsServerStream:
		return "server_stream"
	}
	return unaryKind
}

// of returns the method of a full name, which gRPC has found among the server's.
func (c *calls) of(full string) *method { return c.methods[full] }

// end counts the end of a call with a status.
func (m *method) end(err error) { m.handled.WithLabelValues(status.Code(err).String()).Inc() }
