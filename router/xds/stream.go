package xds

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

// What clients may ask for.
const (
	maxStreams = 10_000
	// maxNames is of one type on one stream, maxNamesInAll of all types on all streams.
	// One that nobody has costs most, 600 bytes.
	maxNames      = 1_000
	maxNamesInAll = 400_000
	// maxName is a pool, a slash and the name of an endpoint.
	maxName = 63 + 1 + 63
	maxNode = 256
	// maxReason is how much of a client's reason for a rejection is logged.
	maxReason = 500
)

const (
	// sendLimit is how long one response may wait for room and for its client to read.
	sendLimit = 5 * time.Second
	// answerLimit is how long a client may take to confirm or reject one. Envoy takes
	// up to 15 s while it starts.
	answerLimit = time.Minute
)

// stream is one client's. It holds what the client sends to the limits, notes
// what it confirms, and gives up a client that does not read. One goroutine may
// receive while another sends.
type stream struct {
	discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	door *Door
	// from is where the client is, corner the room that it has there.
	from   netip.Prefix
	corner *corner
	// giveUp ends the stream.
	giveUp func()

	mu sync.Mutex
	// node is what the client calls itself.
	node string
	// types are the client's subscriptions by type.
	types map[string]*subscription
	// refusal is why the client may not go on.
	refusal error
	// ended is set when nothing is to be remembered of the client any more.
	ended bool
}

// subscription is what a client has asked for of one type, and what it knows.
type subscription struct {
	names []string
	// nonce and version are of the last response; unanswered is set until the
	// client has confirmed or rejected it.
	nonce      string
	version    uint64
	unanswered bool
	// settled is the version that the client has answered last, rejecting whether
	// it rejected that.
	settled   uint64
	rejecting bool
	// holds is the room that is taken until the client answers, overdue ends the
	// stream where it does not.
	holds   int64
	overdue *time.Timer
}

func newStream(raw discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer, d *Door) *stream {
	return &stream{
		AggregatedDiscoveryService_StreamAggregatedResourcesServer: raw, door: d, from: rpc.Source(raw.Context()),
		types: map[string]*subscription{},
	}
}

// Recv returns the next request, with no more in it than is needed.
func (s *stream) Recv() (*discoveryv3.DiscoveryRequest, error) {
	req, err := s.AggregatedDiscoveryService_StreamAggregatedResourcesServer.Recv()
	if err != nil {
		return nil, err
	}
	if reason, err := check(req); err != nil {
		return nil, s.refuse(reason, err)
	}
	for i, name := range req.GetResourceNames() {
		if len(name) > maxName {
			// There is no such resource, and there will be none.
			s.door.metrics.refuse(refusedName)
			req.ResourceNames[i] = ""
		}
	}
	rejection := req.GetErrorDetail()
	req.ErrorDetail = nil
	if n := req.GetNode(); n != nil {
		req.Node = &corev3.Node{Id: n.GetId(), Cluster: n.GetCluster()}
	}
	answers, err := s.note(req, rejection != nil)
	if err != nil {
		return nil, s.refuse(refusedNames, err)
	}
	if answers {
		s.answered(req.GetTypeUrl(), rejection)
	}
	s.door.audience.wake()
	return req, nil
}

// refuse ends the stream with an error, which it returns.
func (s *stream) refuse(limit string, err error) error {
	s.door.metrics.refuse(limit)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = err
	return err
}

// check says why a request is refused, and with which reason it is counted.
func check(req *discoveryv3.DiscoveryRequest) (reason string, err error) {
	if kindOf(req.GetTypeUrl()) == "" {
		return refusedType, member.Invalid("type_url",
			"%.100q is not served, only listeners, routes, clusters and endpoints", req.GetTypeUrl())
	}
	if n := len(req.GetResourceNames()); n > maxNames {
		return refusedNames, member.Invalid("resource_names", "has %d entries; at most %d are allowed", n, maxNames)
	}
	if n := max(len(req.GetNode().GetId()), len(req.GetNode().GetCluster())); n > maxNode {
		return refusedNode, member.Invalid("node", "id or cluster has %d bytes; at most %d are allowed", n, maxNode)
	}
	return "", nil
}

// note takes what a request says of its type, and reports whether it answers the
// last response. A request that was sent before that arrived says nothing. It is an
// error if all clients together ask for too much.
func (s *stream) note(req *discoveryv3.DiscoveryRequest, rejects bool) (answers bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := req.GetNode(); n != nil {
		s.node = n.GetId()
	}
	sub := s.types[req.GetTypeUrl()]
	if sub == nil {
		sub = &subscription{}
		s.types[req.GetTypeUrl()] = sub
	}
	if sub.unanswered && req.GetResponseNonce() != sub.nonce {
		return false, nil
	}
	if s.ended {
		return false, nil
	}
	if err := s.door.audience.subscribe(s, len(req.GetResourceNames())-len(sub.names)); err != nil {
		return false, err
	}
	sub.names = req.GetResourceNames()
	if !sub.unanswered {
		return false, nil
	}
	sub.settled, sub.rejecting, sub.unanswered = sub.version, rejects, false
	s.free(sub)
	return true, nil
}

// free gives the room back that a subscription holds. It needs the lock.
func (s *stream) free(sub *subscription) {
	if sub.overdue != nil {
		sub.overdue.Stop()
		s.door.room.give(s.corner, sub.holds)
		sub.overdue, sub.holds = nil, 0
	}
}

// end returns how many names the client has asked for. From then on it has asked for
// none, and holds nothing, though a request may be under way still.
func (s *stream) end() (names int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.types {
		names += len(sub.names)
		s.free(sub)
	}
	s.ended = true
	return names
}

// answered counts a confirmation or, if there is a reason, a rejection.
func (s *stream) answered(url string, rejection *status.Status) {
	if rejection == nil {
		s.door.metrics.answers.WithLabelValues(kindOf(url), "ack").Inc()
		return
	}
	s.door.metrics.answers.WithLabelValues(kindOf(url), "nack").Inc()
	from := "unknown"
	if p, ok := peer.FromContext(s.Context()); ok {
		from = p.Addr.String()
	}
	s.mu.Lock()
	node := s.node
	s.mu.Unlock()
	s.door.log.WarnContext(s.Context(), "client rejected xDS resources", "peer", from, "node_id", node,
		"kind", kindOf(url), "reason", fmt.Sprintf("%.*s", maxReason, rejection.GetMessage()))
}

// Send sends a response when there is room for it, and gives up a client that does
// not read, or does not answer. A send to such a client blocks until its stream ends,
// so that it is not in the caller.
func (s *stream) Send(res *discoveryv3.DiscoveryResponse) error {
	ctx, cancel := context.WithTimeout(s.Context(), sendLimit)
	defer cancel()
	holds, err := s.door.room.take(ctx, s.corner, proto.Size(res))
	if err != nil {
		return s.unread()
	}
	s.sending(res, holds)
	s.door.metrics.responses.WithLabelValues(kindOf(res.GetTypeUrl())).Inc()
	sent := make(chan error, 1)
	s.door.running.Go(func() {
		sent <- s.AggregatedDiscoveryService_StreamAggregatedResourcesServer.Send(res)
	})
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return s.unread()
	}
}

// sending notes a response that is sent now, and the room that it has taken.
func (s *stream) sending(res *discoveryv3.DiscoveryResponse, holds int64) {
	version, _ := s.door.publisher.number(res.GetVersionInfo())
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.types[res.GetTypeUrl()]
	if sub == nil {
		s.door.room.give(s.corner, holds)
		return
	}
	s.free(sub)
	sub.nonce, sub.version, sub.unanswered = res.GetNonce(), version, true
	sub.holds, sub.overdue = holds, time.AfterFunc(answerLimit, s.unanswered)
}

// unread says why a client is given up that a response could not be sent to.
func (s *stream) unread() error {
	if err := s.Context().Err(); err != nil {
		return err
	}
	s.door.metrics.dropped.Inc()
	return fmt.Errorf("send to xDS client: %w: responses were not read for %v", member.ErrExhausted, sendLimit)
}

// unanswered gives up a client that has not answered a response in time.
func (s *stream) unanswered() {
	s.door.metrics.dropped.Inc()
	s.mu.Lock()
	s.refusal = fmt.Errorf("send to xDS client: %w: a response was not confirmed for %v", member.ErrExhausted, answerLimit)
	s.mu.Unlock()
	s.giveUp()
}

// refused is why the client may not go on, or nil.
func (s *stream) refused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal
}

// settled reports whether the client has answered a version of the assignments.
func (s *stream) settled(version uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.types[resource.EndpointType]
	return sub == nil || sub.settled >= version
}

// assignments are the names of the assignments that the client has asked for.
func (s *stream) assignments() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub := s.types[resource.EndpointType]; sub != nil {
		return sub.names
	}
	return nil
}

// rejecting reports whether the client's last answer of any type was a rejection.
func (s *stream) rejecting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.types {
		if sub.rejecting {
			return true
		}
	}
	return false
}
