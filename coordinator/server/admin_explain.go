package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	defaultDecisions = 5
	largestDecisions = 100
	explainEvents    = 20
)

// knowledge is all that is known about one server.
type knowledge struct {
	pool      member.Pool
	id        member.ID
	now       time.Time
	status    pool.ServerStatus
	member    bool
	departed  member.Departed
	left      bool
	decisions []pool.Decision
	// events are the newest about the server, newest first. historyErr says why
	// the table's could not be read.
	events     []member.Event
	historyErr error
}

// ExplainServer tells why a server is where it is, or why it left. While the
// database fails it answers from memory.
func (a *adminService) ExplainServer(ctx context.Context, req *pb.ExplainServerRequest) (*pb.ExplainServerResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	id, err := member.ParseID("server_id", req.GetServerId())
	if err != nil {
		return nil, err
	}
	limit, err := parseLimit(req.GetLimit())
	if err != nil {
		return nil, err
	}
	k := knowledge{pool: h.pool, id: id, now: time.Now()}
	err = h.view(ctx, func(m *pool.Machine) {
		k.status, k.member = m.Server(id)
		k.departed, k.left = m.Departed(id)
		k.decisions = m.Decisions(id)
	})
	if err != nil {
		return nil, err
	}
	a.addHistory(ctx, &k, limit)
	if !k.known() {
		if k.historyErr != nil {
			return nil, k.historyErr
		}
		return nil, fmt.Errorf("explain server %s in pool %s: %w", id, h.pool, member.ErrNotFound)
	}
	return a.explanation(h, k, limit), nil
}

func parseLimit(n int32) (int, error) {
	switch {
	case n < 0:
		return 0, member.Invalid("limit", "%d is negative", n)
	case n > largestDecisions:
		return 0, member.Invalid("limit", "%d is more than %d", n, largestDecisions)
	case n == 0:
		return defaultDecisions, nil
	}
	return int(n), nil
}

// addHistory reads what the table remembers, and adds the decisions that memory
// no longer holds.
func (a *adminService) addHistory(ctx context.Context, k *knowledge, limit int) {
	k.events, k.historyErr = a.events.Events(ctx, store.EventQuery{Pool: k.pool, ID: k.id, Limit: explainEvents})
	if k.historyErr != nil {
		return
	}
	var past []member.Event
	past, k.historyErr = a.events.Events(ctx, store.EventQuery{
		Pool: k.pool, ID: k.id, Limit: limit,
		Kinds: []member.EventKind{member.EventRemoved, member.EventNotRemoved, member.EventHeld, member.EventContradicted},
	})
	for _, e := range past {
		if e.Explanation == nil {
			continue
		}
		d := pool.Decision{Explanation: *e.Explanation}
		if e.Kind == member.EventRemoved || e.Kind == member.EventHeld {
			d.Revision = e.Revision
		}
		if !slices.ContainsFunc(k.decisions, func(o pool.Decision) bool { return sameDecision(o, d) }) {
			k.decisions = append(k.decisions, d)
		}
	}
	slices.SortStableFunc(k.decisions, func(x, y pool.Decision) int {
		return y.Explanation.Started.Compare(x.Explanation.Started)
	})
}

// sameDecision compares by what survives the table, which keeps microseconds.
func sameDecision(a, b pool.Decision) bool {
	return a.Explanation.Verdict == b.Explanation.Verdict && a.Explanation.Incarnation == b.Explanation.Incarnation &&
		a.Explanation.Started.UnixMicro() == b.Explanation.Started.UnixMicro()
}

func (k *knowledge) known() bool {
	return k.member || k.left || len(k.decisions) > 0 || len(k.events) > 0
}

func (a *adminService) explanation(h *host, k knowledge, limit int) *pb.ExplainServerResponse {
	res := &pb.ExplainServerResponse{Summary: k.summary()}
	if k.member {
		res.Server = toServer(k.pool, k.status)
	}
	if k.left {
		res.Departure = toDeparture(k.departed)
	}
	for _, d := range k.decisions[:min(limit, len(k.decisions))] {
		res.Decisions = append(res.Decisions, a.decision(h, d))
	}
	for _, e := range k.events {
		res.Events = append(res.Events, toEvent(k.pool, e))
	}
	return res
}

// decision adds to what the machine knows what came of it: when the change was
// published, and when each router had applied it.
func (a *adminService) decision(h *host, d pool.Decision) *pb.Decision {
	out := &pb.Decision{Explanation: toExplanation(d.Explanation, d.Revision)}
	if d.Revision == 0 {
		return out
	}
	moment := func(at time.Time, kind, who, text string) {
		out.Explanation.Timeline = append(out.Explanation.Timeline, &pb.Moment{
			At: durationpb.New(at.Sub(d.Explanation.Started)), Kind: kind, Who: who, Text: text,
		})
	}
	if e := h.history.entryOf(d.Revision); e != nil {
		moment(e.at, "published", actorSelf, fmt.Sprintf("revision %d", d.Revision))
	}
	for _, r := range a.routers.progressOf(h.pool, d.Revision) {
		out.Routers = append(out.Routers, &pb.RouterProgress{RouterId: string(r.id), AppliedAt: toTime(r.at)})
		if !r.at.IsZero() {
			moment(r.at, "acked", "router/"+string(r.id), "")
		}
	}
	slices.SortStableFunc(out.Explanation.Timeline, func(x, y *pb.Moment) int {
		return cmp.Compare(x.GetAt().AsDuration(), y.GetAt().AsDuration())
	})
	return out
}

func toDeparture(d member.Departed) *pb.Departure {
	return &pb.Departure{
		Incarnation: uint64(d.Incarnation), Cause: toCause(d.Cause), LeftAt: toTime(d.LeftAt),
		FlapScore: d.FlapScore, HoldDown: durationpb.New(d.HoldDown),
	}
}

// summary says in a few plain sentences where the server is and why.
func (k *knowledge) summary() string {
	var parts []string
	if k.member {
		parts = append(parts, k.present())
		parts = append(parts, k.conditions()...)
	} else {
		parts = append(parts, k.absent())
	}
	if d := k.lastDecision(); d != "" {
		parts = append(parts, d)
	}
	if k.historyErr != nil {
		parts = append(parts, "The history in the table cannot be read now, so older decisions may be missing.")
	}
	return strings.Join(parts, " ")
}

func (k *knowledge) present() string {
	s := k.status.Server
	buddies := "it is alone in the pool"
	switch {
	case s.First != "" && s.First == s.Second:
		buddies = fmt.Sprintf("its only buddy is %s", s.First)
	case s.First != "":
		buddies = fmt.Sprintf("its buddies are %s and %s", s.First, s.Second)
	}
	return fmt.Sprintf("%s is a member of pool %s, %s since %s (%s); %s.",
		k.id, k.pool, phaseWords(s.Phase), s.Since.UTC().Format(time.DateTime)+" UTC", k.ago(s.Since), buddies)
}

func phaseWords(p member.Phase) string {
	switch p {
	case member.PhaseJoining:
		return "joining"
	case member.PhaseActive:
		return "active"
	case member.PhaseServiceDown:
		return "with its service down"
	case member.PhaseDraining:
		return "draining"
	case member.PhaseHeld:
		return "held back"
	case member.PhaseUnspecified:
	}
	return "in an unknown phase"
}

func (k *knowledge) conditions() []string {
	var parts []string
	if k.status.Suspect {
		parts = append(parts, "It is suspect now: routers prefer others.")
	}
	if !k.status.Connected {
		parts = append(parts, "Its agent has no live session; that alone removes nobody.")
	}
	if w := k.status.WaitingFor; w != "" {
		parts = append(parts, "It waits for: "+w+".")
	}
	if w := k.status.Wish; w != member.WishActive && w != member.WishUnspecified {
		parts = append(parts, fmt.Sprintf("An operator wants it %s.", wishWords(w)))
	}
	if n := len(k.status.Temporary); n > 0 {
		names := make([]string, n)
		for i, id := range k.status.Temporary {
			names[i] = string(id)
		}
		parts = append(parts, "It is watched for the time being by "+strings.Join(names, ", ")+".")
	}
	return parts
}

func wishWords(w member.Wish) string {
	switch w {
	case member.WishDrain:
		return "drained"
	case member.WishMaintenance:
		return "under maintenance: routed, but not judged"
	case member.WishBanned:
		return "banned"
	case member.WishActive, member.WishUnspecified:
	}
	return "active"
}

// absent says how a server that is no member has left.
func (k *knowledge) absent() string {
	for _, e := range k.events {
		if e.Kind == member.EventRemoved {
			return fmt.Sprintf("%s is not a member: removed at revision %d, %s, cause %s: %s.",
				k.id, e.Revision, k.ago(e.At), e.Cause, strings.TrimSuffix(e.Text, "."))
		}
	}
	if k.left {
		return fmt.Sprintf("%s is not a member: removed %s, cause %s.", k.id, k.ago(k.departed.LeftAt), k.departed.Cause)
	}
	for _, d := range k.decisions {
		if d.Revision > 0 {
			return fmt.Sprintf("%s is not a member: removed at revision %d: %s.",
				k.id, d.Revision, strings.TrimSuffix(d.Explanation.Text, "."))
		}
	}
	return fmt.Sprintf("%s is not a member.", k.id)
}

// lastDecision tells the newest decision, unless it is how the server left.
func (k *knowledge) lastDecision() string {
	if len(k.decisions) == 0 || !k.member {
		return ""
	}
	x := k.decisions[0].Explanation
	return fmt.Sprintf("The newest decision, %s: %s.", k.ago(cmp.Or(x.Decided, x.Started)), strings.TrimSuffix(x.Text, "."))
}

// ago is a time as people say it.
func (k *knowledge) ago(t time.Time) string {
	d := k.now.Sub(t)
	switch {
	case t.IsZero():
		return "at an unknown time"
	case d < 0:
		return "just now"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s ago", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}
