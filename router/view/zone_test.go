package view_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// inZones returns ACTIVE servers of weight 100: as many in a zone as said, in the
// order of the letters.
func inZones(sizes ...int) *view.Table {
	var entries []view.Entry
	for z, n := range sizes {
		for i := range n {
			s := server(member.ID(fmt.Sprintf("%c%03d", 'a'+z, i)))
			s.Zone = string(rune('a' + z))
			entries = append(entries, view.Entry{Server: s})
		}
	}
	return view.NewTable(entries)
}

func TestPick_StaysInTheZoneThatBearsIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sizes []int
		zone  string
		// stays is the share that stays, for zone a.
		stays float64
	}{
		"even":                         {[]int{10, 10, 10}, "a", 1},
		"a little smaller":             {[]int{8, 10, 10}, "a", 1},
		"just enough":                  {[]int{10, 18}, "a", 1},
		"half of a zone is gone":       {[]int{5, 10, 10}, "a", 1.4 * 5 * 3 / 25},
		"next to nothing":              {[]int{1, 99}, "a", 1.4 * 1 * 2 / 100},
		"the only zone":                {[]int{5}, "a", 1},
		"nobody is in the zone":        {[]int{0, 5}, "a", 0},
		"the client does not say":      {[]int{5, 15}, "", 0.25},
		"a zone that nobody has heard": {[]int{5, 15}, "x", 0.25},
	} {
		for _, policy := range policies {
			t.Run(name+" "+policy.String(), func(t *testing.T) {
				t.Parallel()
				table := inZones(c.sizes...)
				const n = 20_000
				picked := tally(table, view.Request{Policy: policy, Zone: c.zone}, n)
				var local float64
				for i, e := range table.Entries() {
					if e.Server.Zone == "a" {
						local += float64(picked[i])
					}
				}
				tolerance := 6 * math.Sqrt(n*c.stays*(1-c.stays))
				if policy == view.RoundRobin {
					tolerance = 2
				}
				if policy == view.Maglev {
					// Places, not draws.
					tolerance += n * 0.002
				}
				if math.Abs(local-n*c.stays) > tolerance {
					t.Errorf("%v of %d stay, want %.0f ± %.0f", local, n, n*c.stays, tolerance)
				}
			})
		}
	}
}

// Within the zone and outside of it, work is spread by weight.
func TestPick_SpreadsBothPartsByWeight(t *testing.T) {
	t.Parallel()
	table := inZones(5, 10, 10)
	for _, policy := range policies {
		const n = 50_000
		picked := tally(table, view.Request{Policy: policy, Zone: "a"}, n)
		for i, e := range table.Entries() {
			share := (1 - 0.84) / 20
			if e.Server.Zone == "a" {
				share = 0.84 / 5
			}
			tolerance := 6*math.Sqrt(n*share*(1-share)) + 2
			if math.Abs(float64(picked[i])-n*share) > tolerance {
				t.Errorf("%v: %s got %d of %d, want %.0f ± %.0f", policy, e.Server.ID, picked[i], n, n*share, tolerance)
			}
		}
	}
}

// A zone never makes a client get a server of a worse state, nor none.
func TestPick_AsksTheZoneOnlyAmongActive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		table := anyTable(0).Draw(t, "table")
		r := anyRequest(table).Draw(t, "request")
		in, inOK := table.Pick(r)
		list := table.PickN(nil, r, 12)
		zone := r.Zone
		r.Zone = ""
		out, outOK := table.Pick(r)
		if inOK != outOK {
			t.Fatalf("picked from zone %q: %v, from nowhere: %v", zone, inOK, outOK)
		}
		if inOK && in.State() != out.State() {
			t.Fatalf("%v from zone %q, %v from nowhere", in.State(), zone, out.State())
		}
		if all := table.PickN(nil, r, 12); len(list) != len(all) {
			t.Fatalf("%d choices from zone %q, %d from nowhere", len(list), zone, len(all))
		}
		var order strings.Builder
		for _, c := range list {
			if c.State() == view.StateActive {
				order.WriteString(map[bool]string{true: "n", false: "f"}[c.Server().Zone == zone])
			}
		}
		// With a key, those of the zone that are full come last.
		mayBeFull := r.Policy == view.Maglev && r.TotalLoad > 0
		if s := order.String(); zone != "" && !mayBeFull && strings.Count(s, "nf")+strings.Count(s, "fn") > 1 {
			t.Fatalf("the zone's and the others are mixed: %s", s)
		}
	})
}

// With a key, servers of the zone that are full are passed over for others.
func TestPick_LeavesAFullZone(t *testing.T) {
	t.Parallel()
	table := inZones(5, 5)
	loads := counts{100, 100, 100, 100, 100, 0, 0, 0, 0, 0}
	for _, key := range keys(100) {
		c, _ := table.Pick(&view.Request{Policy: view.Maglev, Zone: "a", Key: key, Loads: &loads, TotalLoad: loads.total()})
		if c.Server().Zone != "b" {
			t.Fatalf("key %q goes to %s, which is full", key, c.Server().ID)
		}
	}
}
