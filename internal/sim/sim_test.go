package sim_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/sim"
)

// everything are options with something of everything.
func everything() sim.Options {
	o := sim.DefaultOptions(40)
	o.Duration = 30 * time.Second
	o.Network.Loss, o.Network.Model = 0.02, sim.LinkBursts
	o.Store.Fail, o.Chaos = 0.1, 0.1
	for _, text := range []string{
		"crash count=2 at=5s", "unplug count=1 at=1s for=400ms times=5 every=3s", "suspend count=1 at=2s for=3s times=3 every=6s",
		"pause-agent count=2 at=3s for=3s", "starve-agent count=2", "restart-agent count=1 at=4s for=1s", "deafen watchers=1 for=10s",
		"make-liar count=1 lie=random", "lose-ingress count=1 at=3s for=5s loss=50%", "cut-off share=20% at=10s for=5s",
		"jump-clock count=3 at=8s clock=1h", "drift-clock share=50%", "break-edge count=1", "isolate count=1 at=20s for=3s",
		"filter-icmp count=1 at=15s for=5s", "crash count=1 at=12s for=4s",
	} {
		f, err := sim.ParseFault("fault", text)
		if err != nil {
			panic(err)
		}
		o.Faults = append(o.Faults, f)
	}
	return o
}

func run(t *testing.T, o sim.Options) *sim.Result {
	t.Helper()
	r, err := sim.Run(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEqualSeedsGiveEqualRuns(t *testing.T) {
	t.Parallel()
	o := everything()
	first, again := run(t, o), run(t, o)
	first.StepSeconds, again.StepSeconds = 0, 0
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the second run with the same seed differs (-first +second):\n%s", diff)
	}
	o.Seed++
	if other := run(t, o); other.Hash == first.Hash {
		t.Error("another seed gives the same run")
	}
}

func TestRecordingChangesNothing(t *testing.T) {
	t.Parallel()
	o := everything()
	want := run(t, o)
	results, err := sim.RunSeeds(o, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if results[0].Hash != want.Hash {
		t.Error("beside another run it is another run")
	}
	var first, again bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &again} {
		log, err := sim.Record(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != again.String() {
		t.Error("two traces of one run differ")
	}
	for _, c := range want.Crashes {
		if !strings.Contains(first.String(), "FAULT "+c.Server+": crash") {
			t.Errorf("the trace does not tell of the crash of %s", c.Server)
		}
	}
}

// A small pool is tried out with every kind of fault that must remove nobody.
func TestNobodyHealthyIsRemoved(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"deafen count=1", "deafen watchers=1", "make-liar count=1 lie=down", "make-liar count=1 lie=up", "make-liar count=1 lie=random",
		"cut-off share=50% at=1s for=15s", "filter-icmp share=100% at=1s", "unplug count=2 within=1s for=400ms times=20 every=1s",
		"pause-agent count=8 at=1s for=3s times=6 every=4s", "starve-agent count=8", "restart-agent count=4 at=1s for=1s times=5 every=4s",
		"jump-clock count=10 at=1s clock=1h", "drift-clock share=100%", "break-edge count=1 at=1s",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			o := sim.DefaultOptions(32)
			o.Settle, o.Duration, o.Network.Loss = 5*time.Second, 25*time.Second, 0.01
			f, err := sim.ParseFault("fault", text)
			if err != nil {
				t.Fatal(err)
			}
			o.Faults = []sim.Fault{f}
			if r := run(t, o); !r.Good() {
				t.Errorf("%+v\n%s", r.WrongRemovals, o.Command())
			}
		})
	}
}

func TestTheDeadAreRemoved(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 50; n += 8 {
		o := sim.DefaultOptions(n)
		o.Settle, o.Duration = 5*time.Second, 10*time.Second
		o.Faults = []sim.Fault{{Kind: sim.Crash, Who: sim.Who{Count: 1}, Within: 2 * time.Second}}
		r := run(t, o)
		if !r.Good() || r.Members != n-1 || len(r.Crashes) != 1 {
			t.Errorf("of %d, with one crash, %d are left: %+v", n, r.Members, r.Crashes)
			continue
		}
		if c := r.Crashes[0]; n > 2 && (c.AvoidedMS <= 0 || c.AvoidedMS > c.RemovedMS || c.RemovedMS > 1000) {
			t.Errorf("of %d, %s is avoided after %v ms and removed after %v ms", n, c.Server, c.AvoidedMS, c.RemovedMS)
		}
	}
}

// Both buddies of a server die at once, as where racks alternate on the ring: to the one
// between them all whom it watches are silent, as to one that is deaf. They leave all
// the same; and if it is deaf, or another one is, nobody else does.
func TestAlternateNeighboursDieTogether(t *testing.T) {
	t.Parallel()
	for n := 4; n <= 8; n++ {
		for seed := range uint64(12) {
			o := sim.DefaultOptions(n)
			o.Seed, o.Settle, o.Duration = seed+1, 6*time.Second, 9*time.Second
			o.Settings.BrakePercent, o.Settings.BrakeZonePercent, o.Settings.FloorPercent = 100, 100, 100
			at := time.Duration(seed) * 430 * time.Millisecond
			o.Faults = []sim.Fault{{Kind: sim.Crash, Who: sim.Who{Watchers: 1}, At: at}}
			r := run(t, o)
			if !r.Good() || r.Members != n-2 || len(r.Crashes) != 2 {
				t.Errorf("%d of %d are left: %+v\n%s", r.Members, n, r.WrongRemovals, o.Command())
			}
			for _, c := range r.Crashes {
				if c.RemovedMS > 3000 {
					t.Errorf("of %d, %s is removed after %v ms\n%s", n, c.Server, c.RemovedMS, o.Command())
				}
			}
			for _, who := range []sim.Who{{Watched: true}, {Count: 1}} {
				deaf := o
				deaf.Faults = append([]sim.Fault{{Kind: sim.Deafen, Who: who, At: at + time.Millisecond}}, o.Faults...)
				if r := run(t, deaf); len(r.WrongRemovals) > 0 {
					t.Errorf("%+v\n%s", r.WrongRemovals, deaf.Command())
				}
			}
		}
	}
}

// The last one of three cannot remove the two others by its word alone, but has routers
// avoid them.
func TestTwoOfThreeDieTogether(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		o := sim.DefaultOptions(3)
		o.Seed, o.Settle, o.Duration = seed+1, 6*time.Second, 20*time.Second
		o.Settings.FloorPercent = 100
		o.Faults = []sim.Fault{{Kind: sim.Crash, Who: sim.Who{Adjacent: true, Count: 2}, At: time.Duration(seed) * 530 * time.Millisecond}}
		r := run(t, o)
		if r.Members != 3 || len(r.Crashes) != 2 {
			t.Errorf("%d are left of 3\n%s", r.Members, o.Command())
		}
		for _, c := range r.Crashes {
			if c.AvoidedMS <= 0 || c.AvoidedMS > 2000 {
				t.Errorf("%s is avoided after %v ms\n%s", c.Server, c.AvoidedMS, o.Command())
			}
		}
	}
}

func TestWrongRemovalsAreSeen(t *testing.T) {
	t.Parallel()
	o := sim.DefaultOptions(20)
	o.Settle, o.Duration = 5*time.Second, 10*time.Second
	o.Faults = []sim.Fault{{Kind: sim.Suspend, Who: sim.Who{Count: 1}, At: time.Second, For: 3 * time.Second}}
	o.Settings.StallTolerance = 200 * time.Millisecond
	if r := run(t, o); len(r.WrongRemovals) > 0 || len(r.Stricken) != 1 || r.Stricken[0].Removals != 1 {
		t.Errorf("a server that was off for 3 s, at a tolerance of 200 ms: %+v %+v", r.WrongRemovals, r.Stricken)
	}
	o.Faults[0].For = 150 * time.Millisecond
	if r := run(t, o); len(r.WrongRemovals) > 0 || r.Stricken[0].Removals != 0 {
		t.Errorf("a server that was off for 150 ms, at a tolerance of 200 ms: %+v %+v", r.WrongRemovals, r.Stricken)
	}
	// A network that loses everything for all of them now and then fools any detector.
	o = sim.DefaultOptions(20)
	o.Duration = 2 * time.Minute
	o.Network.Model, o.Network.Loss, o.Network.BurstLoss, o.Network.Burst = sim.HostBursts, 0.05, 1, 3*time.Second
	r := run(t, o)
	if len(r.WrongRemovals) == 0 || r.Good() {
		t.Error("healthy servers in silent bursts of 3 s are all kept")
	}
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	o := sim.DefaultOptions(50)
	o.Bootstrap, o.CheckRing, o.Settle, o.Duration = true, true, 0, 10*time.Second
	r := run(t, o)
	if !r.Good() || r.Members != 50 || r.Active != 50 || r.AllActiveMS <= 0 || r.AllActiveMS > 5000 {
		t.Errorf("%d members, %d active, all after %v ms, ring: %v", r.Members, r.Active, r.AllActiveMS, r.BrokenRing)
	}
}

func TestFaultsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for _, f := range everything().Faults {
		again, err := sim.ParseFault("fault", f.Text())
		if err != nil {
			t.Errorf("%s: %v", f.Text(), err)
		}
		if diff := cmp.Diff(f, again); diff != "" {
			t.Errorf("%s (-was +is):\n%s", f.Text(), diff)
		}
	}
	for _, wrong := range []string{"", "burn count=1", "crash many=1", "crash count=x", "lose-ingress loss=200%", "unplug times=2", "crash at=-1s", "lengthen-bursts count=1 for=1s"} {
		if _, err := sim.ParseFault("fault", wrong); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

func TestScriptsSayWhatTheyCan(t *testing.T) {
	t.Parallel()
	o := sim.DefaultOptions(5)
	o.Duration = 5 * time.Second
	o.Faults = []sim.Fault{{Kind: sim.Crash, Who: sim.Who{Servers: []int{2}}, At: time.Second, For: 2 * time.Second}}
	log, err := sim.Record(o)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := log.WriteScript(&b, o); err != nil {
		t.Fatal(err)
	}
	want := []string{"run 1s", "crash web-2", "run 2s", "reboot web-2", "run 2s"}
	lines := strings.Split(b.String(), "\n")
	if at := slices.Index(lines, want[0]); at < 0 || !slices.Equal(lines[at:at+len(want)], want) {
		t.Errorf("the script is\n%s", &b)
	}
	o.Faults[0].Kind = sim.Suspend
	if log, err = sim.Record(o); err != nil {
		t.Fatal(err)
	}
	if err := log.WriteScript(&b, o); err == nil {
		t.Error("a script with a word that there is not")
	}
}

func BenchmarkSimulation(b *testing.B) {
	for _, c := range []struct {
		name string
		loss float64
	}{{"quiet", 0}, {"loss", 0.01}} {
		b.Run(c.name, func(b *testing.B) {
			o := sim.DefaultOptions(1000)
			o.Network.Loss = c.loss
			for b.Loop() {
				if _, err := sim.Run(o); err != nil {
					b.Fatal(err)
				}
			}
			seconds := float64(b.N) * (o.Settle + o.Duration).Seconds()
			b.ReportMetric(seconds/b.Elapsed().Seconds(), "virtual-s/s")
		})
	}
}
