package server

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// GetRing returns the ring in order.
func (a *adminService) GetRing(ctx context.Context, req *pb.GetRingRequest) (*pb.GetRingResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	res := &pb.GetRingResponse{}
	err = h.view(ctx, func(m *pool.Machine) {
		at := m.Position()
		res.Revision, res.Epoch = uint64(at.Revision), uint64(at.Epoch)
		for _, row := range m.Ring() {
			if status, ok := m.Server(row.ID); ok {
				res.Members = append(res.Members, toRingMember(status))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

func toRingMember(s pool.ServerStatus) *pb.RingMember {
	out := &pb.RingMember{
		ServerId:    string(s.Server.ID),
		FirstBuddy:  string(s.Server.First),
		SecondBuddy: string(s.Server.Second),
		Phase:       toPhase(s.Server.Phase),
		Suspect:     &s.Suspect,
		Zone:        s.Server.Spec.Zone,
		Rack:        s.Server.Spec.Rack,
	}
	for _, id := range s.Temporary {
		out.TemporaryWatchers = append(out.TemporaryWatchers, string(id))
	}
	return out
}

// A check that finds a difference looks again a few times: changes, and agents'
// acknowledgements, may just have been on their way.
const (
	checkTries = 5
	checkPause = 200 * time.Millisecond
)

// The kinds of problems that the machine's host finds; package ring has those of
// the rows themselves.
const (
	tableDiffers = "table_differs"
	agentDiffers = "agent_differs"
	agentAbsent  = "agent_absent"
)

// CheckRing compares table, memory and agents, and proves the ring.
func (a *adminService) CheckRing(ctx context.Context, req *pb.CheckRingRequest) (*pb.CheckRingResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	return a.check(ctx, h)
}

func (a *adminService) check(ctx context.Context, h *host) (*pb.CheckRingResponse, error) {
	for try := 1; ; try++ {
		res, err := a.checkOnce(ctx, h)
		if err != nil || res.GetConsistent() || try == checkTries {
			return res, err
		}
		select {
		case <-time.After(checkPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// memory is what a machine holds of its ring.
type memory struct {
	at       member.Position
	rows     []member.Server
	sessions map[member.ID]pool.SessionStatus
}

func (a *adminService) checkOnce(ctx context.Context, h *host) (*pb.CheckRingResponse, error) {
	table, err := a.table.Servers(ctx, h.pool)
	if err != nil {
		return nil, err
	}
	var mem memory
	if err := h.view(ctx, func(m *pool.Machine) { mem = memoryOf(m) }); err != nil {
		return nil, err
	}
	problems := ringProblems(mem.rows)
	problems = append(problems, tableProblems(mem, table)...)
	agents, acknowledged := agentProblems(mem)
	problems = append(problems, agents...)
	consistent := !slices.ContainsFunc(problems, func(p *pb.RingProblem) bool {
		return p.GetKind() != string(ring.RackNeighbours) && p.GetKind() != agentAbsent
	})
	return &pb.CheckRingResponse{
		Consistent: &consistent, Problems: problems, Members: toCount(len(mem.rows)),
		Acknowledged: acknowledged, Revision: uint64(mem.at.Revision),
	}, nil
}

func memoryOf(m *pool.Machine) memory {
	mem := memory{at: m.Position(), rows: m.Ring(), sessions: map[member.ID]pool.SessionStatus{}}
	for _, s := range m.Sessions() {
		mem.sessions[s.ID] = s
	}
	return mem
}

func ringProblems(rows []member.Server) []*pb.RingProblem {
	places := make([]ring.Row, len(rows))
	order := make([]member.ID, len(rows))
	sites := make(map[member.ID]ring.Site, len(rows))
	for i, s := range rows {
		places[i] = ring.Row{ID: s.ID, Buddies: member.Buddies{First: s.First, Second: s.Second}}
		order[i] = s.ID
		sites[s.ID] = ring.Site{Zone: s.Spec.Zone, Rack: s.Spec.Rack}
	}
	found := ring.Check(places)
	found = append(found, ring.RackProblems(order, func(id member.ID) ring.Site { return sites[id] })...)
	problems := make([]*pb.RingProblem, len(found))
	for i, p := range found {
		problems[i] = &pb.RingProblem{ServerId: string(p.ID), Kind: string(p.Kind), Text: p.Text}
	}
	return problems
}

// tableProblems compares the rows of the table with those in memory.
func tableProblems(mem memory, table store.ServerRows) []*pb.RingProblem {
	var problems []*pb.RingProblem
	report := func(id member.ID, format string, args ...any) {
		problems = append(problems, &pb.RingProblem{
			ServerId: string(id), Kind: tableDiffers, Text: fmt.Sprintf(format, args...),
		})
	}
	if at := table.At; at != mem.at {
		report("", "the table is at epoch %d revision %d, the coordinator at epoch %d revision %d",
			at.Epoch, at.Revision, mem.at.Epoch, mem.at.Revision)
	}
	inTable := make(map[member.ID]member.Server, len(table.Servers))
	for _, s := range table.Servers {
		inTable[s.ID] = s
	}
	for _, s := range byID(mem.rows) {
		row, ok := inTable[s.ID]
		delete(inTable, s.ID)
		if why := table.Unreadable[s.ID]; why != nil {
			report(s.ID, "the row of %s in the table cannot be read: %v", s.ID, why)
		} else if !ok {
			report(s.ID, "%s has no row in the table", s.ID)
		} else if text := pool.RowDiffers(row, s); text != "" {
			report(s.ID, "%s", text)
		}
	}
	for _, s := range table.Servers {
		if _, left := inTable[s.ID]; left {
			report(s.ID, "%s has a row in the table, but is not in memory", s.ID)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(table.Unreadable)) {
		if !slices.ContainsFunc(mem.rows, func(s member.Server) bool { return s.ID == id }) {
			report(id, "%s has a row in the table that cannot be read, and is not in memory; mend or delete the row: %v", id, table.Unreadable[id])
		}
	}
	return problems
}

func byID(rows []member.Server) []member.Server {
	sorted := slices.Clone(rows)
	slices.SortFunc(sorted, func(a, b member.Server) int { return cmp.Compare(a.ID, b.ID) })
	return sorted
}

// agentProblems compares the lists that the agents have acknowledged with the
// ring. It also counts the agents that have acknowledged all they were sent.
func agentProblems(mem memory) (problems []*pb.RingProblem, acknowledged uint32) {
	report := func(id member.ID, kind, format string, args ...any) {
		problems = append(problems, &pb.RingProblem{
			ServerId: string(id), Kind: kind, Text: fmt.Sprintf(format, args...),
		})
	}
	for _, row := range byID(mem.rows) {
		s, connected := mem.sessions[row.ID]
		if !connected {
			report(row.ID, agentAbsent, "the agent of %s has no session", row.ID)
			continue
		}
		if s.Acked == s.Assigned {
			acknowledged++
		}
		for _, id := range s.Unwatched {
			report(row.ID, agentDiffers, "the agent of %s has not acknowledged that it watches %s", row.ID, id)
		}
		for _, id := range s.Surplus {
			report(row.ID, agentDiffers, "the agent of %s still watches %s", row.ID, id)
		}
	}
	return problems, acknowledged
}
