package pool

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// longestWindow is the longest that the brake may look back.
	longestWindow = time.Hour
	// condemnedFor is how long a server whose round ended in a removal counts for
	// the brake, also if its stream answers; until then there is another round.
	condemnedFor = 10 * time.Second
)

// loss is a removal by verdict.
type loss struct {
	id   member.ID
	at   time.Time
	site ring.Site
}

// standing is what the rows say without what is known beyond them. It holds
// until they change.
type standing struct {
	racks       map[ring.Site]int
	zones       map[string]int
	largestRack int
	// missing counts the servers that left by verdict and fill no place.
	missing int
	// candidates counts the members that would get work if all were well.
	candidates int
}

func siteOf(row *member.Server) ring.Site { return ring.Site{Zone: row.Spec.Zone, Rack: row.Spec.Rack} }

// stand returns the present standing.
func (m *Machine) stand() *standing {
	if m.guard.standing != nil {
		return m.guard.standing
	}
	st := &standing{racks: map[ring.Site]int{}, zones: map[string]int{}}
	for _, s := range m.servers {
		st.largestRack = max(st.largestRack, st.enter(siteOf(&s.row)))
		if isCandidate(&s.row) {
			st.candidates++
		}
	}
	for id := range m.departed {
		if s := m.servers[id]; s == nil || !fills(&s.row) {
			st.missing++
		}
	}
	m.guard.standing = st
	return st
}

// fills reports whether a member fills a place of the pool. One that is JOINING
// or HELD does not get work yet, and perhaps never will.
func fills(row *member.Server) bool {
	return row.Phase != member.PhaseJoining && row.Phase != member.PhaseHeld
}

// fill counts a member that begins to fill a place, by n, or ends.
func (m *Machine) fill(row *member.Server, n int) {
	if fills(row) {
		m.placed += n
	}
}

// placed counts the members that fill a place as the change will leave them.
func (b *batch) placed() int {
	m := b.m
	n := m.placed
	for id := range b.gone {
		if fills(&m.servers[id].row) {
			n--
		}
	}
	for id, row := range b.rows {
		if s := m.servers[id]; s != nil && fills(&s.row) {
			n--
		}
		if fills(row) {
			n++
		}
	}
	return n
}

// enter counts a server at its site and returns the size of its rack. A server
// without a rack is a rack of its own.
func (st *standing) enter(at ring.Site) int {
	if at.Zone != "" {
		st.zones[at.Zone]++
	}
	if at.Rack == "" {
		return 1
	}
	st.racks[at]++
	return st.racks[at]
}

// weigh takes the census. also counts as a suspect whatever is known about it;
// it may be nil.
func (m *Machine) weigh(also *server) verdict.Census {
	st := m.stand()
	c := verdict.Census{
		Members: len(m.servers), LargestRack: st.largestRack, ReferenceSize: m.reference,
		Lost: verdict.Lost(m.reference, m.placed, st.missing),
	}
	counted, zones := map[member.ID]bool{}, map[string]*verdict.Zone{}
	count := func(id member.ID, at ring.Site) {
		counted[id] = true
		c.Suspects++
		if at.Zone == "" {
			return
		}
		z := zones[at.Zone]
		if z == nil {
			z = &verdict.Zone{Name: at.Zone, Size: st.zones[at.Zone]}
			zones[at.Zone] = z
		}
		z.Suspects++
	}
	suspect := func(s *server) {
		count(s.row.ID, siteOf(&s.row))
		if fills(&s.row) && len(m.servers) > 1 {
			// The last one is never removed.
			c.Going++
		}
	}
	for id := range m.marked {
		if s := m.servers[id]; s == also || m.weighs(s) {
			suspect(s)
		}
	}
	if also != nil && !counted[also.row.ID] {
		suspect(also)
	}
	gone := map[ring.Site]int{}
	for _, l := range slices.Backward(m.guard.losses) {
		if m.now.Sub(l.at) >= m.settings.BrakeWindow {
			break
		}
		if counted[l.id] {
			continue
		}
		count(l.id, l.site)
		if m.servers[l.id] != nil {
			continue
		}
		c.Members++
		if z := zones[l.site.Zone]; z != nil {
			z.Size++
		}
		if l.site.Rack != "" {
			gone[l.site]++
			c.LargestRack = max(c.LargestRack, st.racks[l.site]+gone[l.site])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(zones)) {
		c.Zones = append(c.Zones, *zones[name])
	}
	return c
}

// weighs reports whether a suspect speaks for a mass failure. One whose stream
// proves it alive does not, unless a round has come to its removal all the same;
// nor does one that gets no work anyway, or whose loss an operator has confirmed.
func (m *Machine) weighs(s *server) bool {
	if s.row.Phase == member.PhaseHeld && !m.lostForGood(s) || m.isReleased(s.row.ID) {
		return false
	}
	return !m.provenAlive(s) || m.now.Before(s.condemned)
}

// provenAlive reports whether the member's stream answers, in the present round or
// lately while its loss is measured. A challenge just sent leaves it as it was.
func (m *Machine) provenAlive(s *server) bool {
	q := &s.inquiry
	if sess := m.sessions[s.session]; sess != nil && !s.loss.since.IsZero() && m.now.Sub(sess.provenAt) < memoryOfAnswers {
		return true
	}
	return q.proof() == verdict.ProofAlive ||
		q.round != nil && q.lastProof == verdict.ProofAlive && m.now.Sub(q.opened) < proofTime
}

// recordLoss remembers a removal by verdict for as long as the brake may look
// back.
func (m *Machine) recordLoss(l loss) {
	m.trimLosses()
	m.guard.losses = append(m.guard.losses, l)
}

func (m *Machine) trimLosses() {
	old := 0
	for old < len(m.guard.losses) && m.now.Sub(m.guard.losses[old].at) >= longestWindow {
		old++
	}
	m.guard.losses = slices.Delete(m.guard.losses, 0, old)
}

// recallLosses takes the losses before the start from what is remembered of
// those that left. Their zones are known no more. Who has a row that is older
// than that, if one clock wrote both, has not left then: it was held anew.
func (m *Machine) recallLosses(state member.PoolState) {
	joined := map[member.ID]time.Time{}
	for _, row := range state.Servers {
		joined[row.ID] = row.JoinedAt
	}
	for _, d := range state.Departed {
		at, is := joined[d.ID]
		if left := m.past(d.LeftAt); m.now.Sub(left) < longestWindow && (!is || at.After(d.LeftAt)) {
			m.guard.losses = append(m.guard.losses, loss{id: d.ID, at: left})
		}
	}
	slices.SortFunc(m.guard.losses, func(a, b loss) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id, b.id)) })
}
