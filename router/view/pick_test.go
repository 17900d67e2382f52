package view_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

var policies = []view.Policy{view.P2C, view.RoundRobin, view.Random, view.Maglev}

// anyTable generates tables in which some servers are suspect or held back,
// some have no weight, and some offer an endpoint called "admin".
func anyTable(minSize int) *rapid.Generator[*view.Table] {
	return rapid.Custom(func(t *rapid.T) *view.Table {
		entries := make([]view.Entry, rapid.IntRange(minSize, 12).Draw(t, "size"))
		for i := range entries {
			s := server(member.ID(fmt.Sprintf("s%02d", i)))
			s.Weight = rapid.SampledFrom([]uint32{100, 100, 100, 1, 50, 200, 10_000, 0}).Draw(t, "weight")
			s.Zone = rapid.SampledFrom([]string{"a", "a", "b", ""}).Draw(t, "zone")
			if rapid.Bool().Draw(t, "admin") {
				s.Endpoints = append(s.Endpoints, member.Endpoint{Name: "admin", Address: string(s.ID) + ":81"})
			}
			entries[i] = view.Entry{Server: s, State: view.State(rapid.IntRange(0, 2).Draw(t, "state"))}
		}
		return view.NewTable(entries)
	})
}

func anyRequest(table *view.Table) *rapid.Generator[*view.Request] {
	return rapid.Custom(func(t *rapid.T) *view.Request {
		loads := make(counts, len(table.Entries()))
		for i := range loads {
			loads[i] = rapid.Uint64Range(0, 5).Draw(t, "load")
		}
		r := &view.Request{
			Policy:   rapid.SampledFrom(policies).Draw(t, "policy"),
			Endpoint: rapid.SampledFrom([]string{"", "", "admin", "none"}).Draw(t, "endpoint"),
			Random:   rapid.Uint64().Draw(t, "random"),
			Turn:     rapid.Uint64().Draw(t, "turn"),
			Zone:     rapid.SampledFrom([]string{"", "", "a", "b", "c"}).Draw(t, "zone"),
			Key:      rapid.String().Draw(t, "key"),
			Loads:    &loads,
		}
		if rapid.Bool().Draw(t, "bounded") {
			r.TotalLoad = loads.total()
		}
		some := rapid.Bool().Draw(t, "some")
		for _, e := range table.Entries() {
			if some && rapid.Bool().Draw(t, "exclude") {
				r.Exclude = append(r.Exclude, e.Server.ID)
			}
		}
		return r
	})
}

// eligible returns what a request may choose, in order of preference.
func eligible(table *view.Table, r *view.Request) []view.Entry {
	return slices.DeleteFunc(slices.Clone(table.Entries()), func(e view.Entry) bool {
		offers := r.Endpoint == "" || slices.ContainsFunc(e.Server.Endpoints, func(ep member.Endpoint) bool { return ep.Name == r.Endpoint })
		return e.Server.Weight == 0 || !offers || slices.Contains(r.Exclude, e.Server.ID)
	})
}

func TestPick_IsTheBestThatMayBeChosen(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		table := anyTable(0).Draw(t, "table")
		r := anyRequest(table).Draw(t, "request")
		may := eligible(table, r)
		c, ok := table.Pick(r)
		if ok != (len(may) > 0) {
			t.Fatalf("picked: %v, with %d eligible", ok, len(may))
		}
		if !ok {
			return
		}
		if e := table.Entries()[c.Index()]; e.Server != c.Server() || e.State != c.State() {
			t.Fatalf("choice %v is not entry %d", c, c.Index())
		}
		if c.State() != may[0].State {
			t.Fatalf("chose a server that is %v while one is %v", c.State(), may[0].State)
		}
		if !slices.Contains(may, table.Entries()[c.Index()]) {
			t.Fatalf("chose %s, which may not be chosen", c.Server().ID)
		}
		if want := map[string]string{"": ":80", "admin": ":81"}[r.Endpoint]; c.Address() != string(c.Server().ID)+want {
			t.Fatalf("address %s for endpoint %q", c.Address(), r.Endpoint)
		}
		if same, _ := view.PickTheGeneralWay(table, r); same != c {
			t.Fatalf("chose %s, the general way %s", c.Server().ID, same.Server().ID)
		}
		if again, _ := table.Pick(r); again != c {
			t.Fatalf("the same request chose %s, then %s", c.Server().ID, again.Server().ID)
		}
	})
}

func TestPickN_IsDistinctAndComplete(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		table := anyTable(0).Draw(t, "table")
		r := anyRequest(table).Draw(t, "request")
		n := rapid.IntRange(1, 14).Draw(t, "n")
		may := eligible(table, r)
		choices := table.PickN(nil, r, n)
		if want := min(n, len(may)); len(choices) != want {
			t.Fatalf("%d choices, want %d", len(choices), want)
		}
		seen := map[member.ID]bool{}
		for i, c := range choices {
			if seen[c.Server().ID] || !slices.Contains(may, table.Entries()[c.Index()]) {
				t.Fatalf("%s twice or not eligible", c.Server().ID)
			}
			seen[c.Server().ID] = true
			if c.State() != may[i].State {
				t.Fatalf("choice %d is %v, want %v", i, c.State(), may[i].State)
			}
		}
		if one, ok := table.Pick(r); ok && n == 1 && one.State() != choices[0].State() {
			t.Fatalf("Pick prefers %v, PickN %v", one.State(), choices[0].State())
		}
	})
}

// weighted returns a table of ACTIVE servers.
func weighted(weights ...uint32) *view.Table {
	entries := make([]view.Entry, len(weights))
	for i, w := range weights {
		s := server(member.ID(fmt.Sprintf("s%02d", i)))
		s.Weight = w
		entries[i] = view.Entry{Server: s}
	}
	return view.NewTable(entries)
}

// tally makes n picks and counts them by index; with p2c each pick is a load.
func tally(table *view.Table, r view.Request, n int) counts {
	picked := make(counts, len(table.Entries()))
	random := rand.New(rand.NewPCG(1, 2))
	r.Loads = &picked
	for range n {
		r.Random = random.Uint64()
		r.Key = fmt.Sprint(r.Random)
		c, _ := table.Pick(&r)
		picked[c.Index()]++
		r.Turn++
	}
	return picked
}

func TestPick_BalancesByWeight(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(1, 400), 2, 10).Draw(t, "weights")
		policy := rapid.SampledFrom(policies).Draw(t, "policy")
		var exclude []member.ID
		if rapid.Bool().Draw(t, "exclude") && len(weights) > 2 {
			exclude = []member.ID{"s00"}
		}
		const n = 20_000
		picked := tally(weighted(weights...), view.Request{Policy: policy, Exclude: exclude}, n)
		var sum float64
		for i, w := range weights {
			if len(exclude) > 0 && i == 0 {
				weights[0] = 0
				continue
			}
			sum += float64(w)
		}
		for i, w := range weights {
			share := float64(w) / sum
			// Six standard deviations of independent draws. Turns that fall to an
			// excluded server pass to the next in line: not by weight.
			tolerance := 6*math.Sqrt(n*share*(1-share)) + 2
			if policy == view.RoundRobin && len(exclude) > 0 {
				tolerance = n
			}
			if got := float64(picked[i]); math.Abs(got-n*share) > tolerance || len(exclude) > 0 && i == 0 && got > 0 {
				t.Fatalf("server %d of weight %d got %v of %d, want %.0f ± %.0f", i, w, got, n, n*share, tolerance)
			}
		}
	})
}

func TestPick_P2CEvensOutMoreThanRandom(t *testing.T) {
	t.Parallel()
	table := weighted(slices.Repeat([]uint32{100}, 100)...)
	const perServer = 100
	p2c := slices.Max(tally(table, view.Request{Policy: view.P2C}, 100*perServer))
	random := slices.Max(tally(table, view.Request{Policy: view.Random}, 100*perServer))
	if p2c > perServer+5 || random < perServer+15 {
		t.Errorf("the busiest of 100 servers got %d by p2c and %d by random, of %d on average", p2c, random, perServer)
	}
}

func TestPick_RoundRobinTakesTurns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		weights []uint32
		want    []int
	}{
		"equal":       {[]uint32{100, 100, 100}, []int{0, 1, 2, 0, 1, 2, 0}},
		"one":         {[]uint32{7}, []int{0, 0, 0}},
		"three to 1":  {[]uint32{300, 100}, []int{0, 1, 0, 0, 0, 1, 0, 0}},
		"2 to 2 to 1": {[]uint32{100, 100, 50}, []int{0, 1, 0, 2, 1, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := weighted(c.weights...)
			var got []int
			for turn := range c.want {
				choice, _ := table.Pick(&view.Request{Policy: view.RoundRobin, Turn: uint64(turn)})
				got = append(got, choice.Index())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("turns %v, want %v", got, c.want)
			}
		})
	}
}

// As many turns as the weights' sum give each server its weight exactly, from
// whichever turn on.
func TestPick_RoundRobinIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(1, 30), 1, 8).Draw(t, "weights")
		from := rapid.Uint64Range(0, math.MaxUint32).Draw(t, "from")
		var sum uint64
		for _, w := range weights {
			sum += uint64(w)
		}
		picked := tally(weighted(weights...), view.Request{Policy: view.RoundRobin, Turn: from}, int(sum))
		for i, w := range weights {
			if picked[i] != uint64(w) {
				t.Fatalf("server %d of weight %d got %d of %d turns", i, w, picked[i], sum)
			}
		}
	})
}

func TestPick_DoesNotAllocate(t *testing.T) {
	table, loads := benchTable(100, mixedWeights)
	for _, policy := range policies {
		r := view.Request{Policy: policy, Endpoint: "http", Exclude: []member.ID{"web-00001"}, Loads: loads}
		allocs := testing.AllocsPerRun(1000, func() {
			r.Random += 0x9e3779b97f4a7c15
			r.Turn++
			if _, ok := table.Pick(&r); !ok {
				t.Fatal("no choice")
			}
		})
		if allocs != 0 {
			t.Errorf("policy %d: %v allocations per pick", policy, allocs)
		}
	}
}
