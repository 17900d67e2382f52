package detect

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// lookEvery is how often an onlooker looks.
const lookEvery = 50 * time.Millisecond

// onlooker looks at a pool during a fault, as operators and clients see it.
type onlooker struct {
	pool *pool
	// suspect is since when a server is suspect, longest the longest of all.
	suspect map[string]time.Time
	longest time.Duration
	marked  map[string]bool
	// fewest is how many servers a router has named at least, unanswered how
	// often a router gave no answer.
	fewest, unanswered int
	// alarms are how many of a name there were at once, at most; already those
	// that were there at the beginning.
	alarms, already map[string]int
}

func newOnlooker(p *pool) *onlooker {
	return &onlooker{
		pool: p, suspect: make(map[string]time.Time), marked: make(map[string]bool),
		fewest: len(p.servers), alarms: make(map[string]int),
	}
}

// look looks until ctx ends. The coordinator's answers may fail to come; the
// routers' may not.
func (o *onlooker) look(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		o.lookAtRouters(ctx)
		o.lookAtCoordinator(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (o *onlooker) lookAtRouters(ctx context.Context) {
	for i := range o.pool.routers {
		answer, err := o.pool.site.Router(i).Resolve(ctx, &routerv1.ResolveRequest{Pool: lab.Pool})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			o.unanswered++
		default:
			o.fewest = min(o.fewest, len(answer.GetServers()))
		}
	}
}

func (o *onlooker) lookAtCoordinator(ctx context.Context) {
	rows, err := o.pool.site.Servers(ctx)
	if err != nil {
		return
	}
	now := time.Now()
	for _, row := range rows {
		id := row.GetServerId()
		if !row.GetSuspect() {
			delete(o.suspect, id)
			continue
		}
		o.marked[id] = true
		if _, ok := o.suspect[id]; !ok {
			o.suspect[id] = now
		}
		o.longest = max(o.longest, now.Sub(o.suspect[id]))
	}
	answer, err := o.pool.site.Admin().ListAlarms(ctx, &coordinatorv1.ListAlarmsRequest{})
	if err != nil {
		return
	}
	count := make(map[string]int)
	for _, a := range answer.GetAlarms() {
		count[a.GetName()]++
	}
	if o.already == nil {
		o.already = count
	}
	for name, n := range count {
		o.alarms[name] = max(o.alarms[name], n-o.already[name])
	}
}

// report tells what was seen.
func (o *onlooker) report(r *FaultReport) {
	r.Suspects, r.LongestSuspect = len(o.marked), seconds(o.longest)
	r.FewestNamed, r.Unanswered = o.fewest, o.unanswered
	for _, name := range slices.Sorted(maps.Keys(o.alarms)) {
		if n := o.alarms[name]; n > 0 {
			r.Alarms = append(r.Alarms, AlarmCount{name, n})
		}
	}
}
