package simulate

import (
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/sim"
)

// flags are what the command is given.
type flags struct {
	o                                sim.Options
	seeds                            int
	json                             bool
	trace, script                    string
	loss, burstLoss, commitFail, bad string
	model, lie, cut                  string
	set, faults                      []string

	crash, adjacent, deaf, deafPairs, liars, pause, starve, stall, suspend, flap, lossy, restart, jump int
	icmpFilter, crashRack, crashZone, drift                                                            bool
}

func (f *flags) bind(fs *pflag.FlagSet) {
	f.o = sim.DefaultOptions(100)
	fs.IntVar(&f.o.Servers, "servers", f.o.Servers, "`size` of the pool")
	fs.IntVar(&f.o.Zones, "zones", f.o.Zones, "zones of the pool; 0 for none")
	fs.IntVar(&f.o.Racks, "racks", f.o.Racks, "racks of each zone; 0 for none")
	fs.IntVar(&f.o.Routers, "routers", f.o.Routers, "routers that subscribe")
	fs.DurationVar(&f.o.Duration, "duration", f.o.Duration, "virtual time to simulate")
	fs.DurationVar(&f.o.Settle, "settle", f.o.Settle, "virtual time before that, in which the pool settles")
	fs.Uint64Var(&f.o.Seed, "seed", f.o.Seed, "the first `seed`")
	fs.IntVar(&f.seeds, "seeds", 1, "how many seeds to run, from --seed on")
	fs.StringArrayVar(&f.set, "set", nil, "a `SETTING=VALUE` of the pool, as brake_percent=100; may be repeated")

	fs.StringVar(&f.loss, "loss", "0%", "`share` of packets that the network loses each way")
	fs.StringVar(&f.model, "loss-model", sim.Independent.String(), "what loses packets: "+strings.Join(sim.LossModels(), ", "))
	fs.DurationVar(&f.o.Network.Burst, "burst", f.o.Network.Burst, "mean length of a burst of loss")
	fs.StringVar(&f.burstLoss, "burst-loss", "90%", "`share` of packets lost within a burst")
	fs.DurationVar(&f.o.Network.Delay, "delay", f.o.Network.Delay, "one way within a zone; double between zones")
	fs.DurationVar(&f.o.Network.Jitter, "jitter", f.o.Network.Jitter, "mean of what is added to that")
	fs.DurationVar(&f.o.Store.Delay, "commit-delay", f.o.Store.Delay, "how long a commit takes")
	fs.StringVar(&f.commitFail, "commit-fail", "0%", "`share` of commits that fail")
	fs.DurationVar(&f.o.Store.HangFor, "commit-hang", 0, "how long the database hangs, from the time of the crashes on")
	fs.StringVar(&f.bad, "chaos", "0%", "`share` of agents' messages that come twice, late or out of order")
	fs.BoolVar(&f.o.Bootstrap, "bootstrap", false, "begin with an empty table: all servers join at once")
	fs.BoolVar(&f.o.CheckRing, "check-ring", false, "check the whole ring at every revision")

	fs.IntVar(&f.crash, "crash", 0, "`number` of servers that crash at once")
	fs.IntVar(&f.adjacent, "crash-adjacent", 0, "`number` of neighbours on the ring that crash at once")
	fs.BoolVar(&f.crashRack, "crash-rack", false, "one rack crashes")
	fs.BoolVar(&f.crashZone, "crash-zone", false, "one zone crashes")
	fs.IntVar(&f.deaf, "deaf", 0, "`number` of agents whose own probes all fail")
	fs.IntVar(&f.deafPairs, "deaf-pair", 0, "`number` of servers both of whose watchers are deaf")
	fs.IntVar(&f.liars, "liar", 0, "`number` of agents that lie about everybody")
	fs.StringVar(&f.lie, "lie", sim.Lies()[0], "what liars say: "+strings.Join(sim.Lies(), ", "))
	fs.StringVar(&f.cut, "cut-coordinator", "0%", "`share` of the agents from which the coordinator is cut off for half the time")
	fs.BoolVar(&f.icmpFilter, "icmp-filter", false, "a firewall begins to drop all ICMP")
	fs.IntVar(&f.pause, "pause", 0, "`number` of agents stopped for 3 s, every 5 s others")
	fs.IntVar(&f.starve, "starve", 0, "`number` of agents that get the processor late")
	fs.IntVar(&f.stall, "stall", 0, "`number` of servers off the network for 400 ms, every second others")
	fs.IntVar(&f.suspend, "suspend", 0, "`number` of servers suspended for 3 s, every 10 s others")
	fs.IntVar(&f.flap, "flap", 0, "`number` of servers that receive nothing for 20 s of every 40 s")
	fs.IntVar(&f.lossy, "lossy", 0, "`number` of servers that lose 80% of what they receive")
	fs.IntVar(&f.restart, "restart-agent", 0, "`number` of agents restarted, every 5 s others")
	fs.IntVar(&f.jump, "clock-jump", 0, "`number` of servers whose wall clock is set forward or back by up to an hour")
	fs.BoolVar(&f.drift, "clock-drift", false, "all clocks run fast or slow by up to 200 parts per million")
	fs.StringArrayVar(&f.faults, "fault", nil, "any other `fault`, see above; may be repeated")

	fs.BoolVar(&f.json, "json", false, "print the results of all seeds as one JSON object")
	fs.StringVar(&f.trace, "trace", "", "write what happened around the first failure, or in the first seed, to a `FILE`")
	fs.StringVar(&f.script, "script", "", "write that run's faults as a scenario script of coordinator/pool to a `FILE`")
}

// blow is when crashes and the like come, at the latest.
const blow = 10 * time.Second

func (f *flags) options() (sim.Options, error) {
	o := f.o
	o.Settings = member.DefaultSettings()
	for _, s := range f.set {
		if err := sim.Set(&o.Settings, s); err != nil {
			return o, err
		}
	}
	if f.seeds < 1 {
		return o, member.Invalid("seeds", "%d is less than 1", f.seeds)
	}
	for _, p := range []struct {
		field, text string
		to          *float64
	}{
		{"loss", f.loss, &o.Network.Loss},
		{"burst-loss", f.burstLoss, &o.Network.BurstLoss},
		{"commit-fail", f.commitFail, &o.Store.Fail},
		{"chaos", f.bad, &o.Chaos},
	} {
		var err error
		if *p.to, err = sim.ParseShare(p.field, p.text); err != nil {
			return o, err
		}
	}
	var err error
	if o.Network.Model, err = sim.ParseLossModel("loss-model", f.model); err != nil {
		return o, err
	}
	if err := f.checkNumbers(); err != nil {
		return o, err
	}
	at := min(blow, o.Duration/4)
	if o.Store.HangFor > 0 {
		o.Store.HangAt = at
	}
	if o.Faults, err = f.plan(at, o.Duration); err != nil {
		return o, err
	}
	if err := o.Check(); err != nil {
		return o, err
	}
	if f.script != "" {
		return o, sim.CheckScript(o)
	}
	return o, nil
}

// checkNumbers says which fault is given more servers than there are, or fewer
// than none, or a zone or rack that there is not.
func (f *flags) checkNumbers() error {
	for _, n := range []struct {
		flag  string
		value int
	}{
		{"crash", f.crash},
		{"crash-adjacent", f.adjacent},
		{"deaf", f.deaf},
		{"deaf-pair", f.deafPairs},
		{"liar", f.liars},
		{"pause", f.pause},
		{"starve", f.starve},
		{"stall", f.stall},
		{"suspend", f.suspend},
		{"flap", f.flap},
		{"lossy", f.lossy},
		{"restart-agent", f.restart},
		{"clock-jump", f.jump},
	} {
		if n.value < 0 || n.value > f.o.Servers {
			return member.Invalid(n.flag, "%d is not from 0 to %d, the size of the pool", n.value, f.o.Servers)
		}
	}
	if f.crashZone && f.o.Zones == 0 {
		return member.Invalid("crash-zone", "the pool has no zones")
	}
	if f.crashRack && (f.o.Zones == 0 || f.o.Racks == 0) {
		return member.Invalid("crash-rack", "the pool has no racks")
	}
	return nil
}

// plan turns the flags into faults.
func (f *flags) plan(at, duration time.Duration) ([]sim.Fault, error) {
	lie, err := sim.ParseLie("lie", f.lie)
	if err != nil {
		return nil, err
	}
	cut, err := sim.ParseShare("cut-coordinator", f.cut)
	if err != nil {
		return nil, err
	}
	again := func(every time.Duration) int { return max(1, int((duration-at)/every)) }
	var faults []sim.Fault
	add := func(is bool, fault sim.Fault) {
		if is {
			faults = append(faults, fault)
		}
	}
	all := sim.Who{Share: 1}
	some := func(n int) sim.Who { return sim.Who{Count: n} }
	add(f.deaf > 0, sim.Fault{Kind: sim.Deafen, Who: some(f.deaf)})
	add(f.deafPairs > 0, sim.Fault{Kind: sim.Deafen, Who: sim.Who{Watchers: f.deafPairs}})
	add(f.liars > 0, sim.Fault{Kind: sim.MakeLiar, Who: some(f.liars), Lie: lie})
	add(f.starve > 0, sim.Fault{Kind: sim.StarveAgent, Who: some(f.starve)})
	add(f.lossy > 0, sim.Fault{Kind: sim.LoseIngress, Who: some(f.lossy), Loss: 0.8, At: at})
	add(f.drift, sim.Fault{Kind: sim.DriftClock, Who: all})
	add(f.flap > 0, sim.Fault{
		Kind: sim.LoseIngress, Who: some(f.flap), Loss: 1, At: at, For: 20 * time.Second, Every: 40 * time.Second,
		Times: again(40 * time.Second), Same: true,
	})
	add(f.pause > 0, sim.Fault{Kind: sim.PauseAgent, Who: some(f.pause), At: at, For: 3 * time.Second, Every: 5 * time.Second, Times: again(5 * time.Second)})
	add(f.stall > 0, sim.Fault{Kind: sim.Unplug, Who: some(f.stall), At: at, For: 400 * time.Millisecond, Every: time.Second, Times: again(time.Second)})
	add(f.suspend > 0, sim.Fault{Kind: sim.Suspend, Who: some(f.suspend), At: at, For: 3 * time.Second, Every: 10 * time.Second, Times: again(10 * time.Second)})
	add(f.restart > 0, sim.Fault{Kind: sim.RestartAgent, Who: some(f.restart), At: at, For: time.Second, Every: 5 * time.Second, Times: again(5 * time.Second)})
	add(f.jump > 0, sim.Fault{Kind: sim.JumpClock, Who: some(f.jump), At: at, Within: time.Second, Clock: time.Hour})
	add(cut > 0, sim.Fault{Kind: sim.CutOff, Who: sim.Who{Share: cut}, At: at / 2, For: duration / 2})
	add(f.icmpFilter, sim.Fault{Kind: sim.FilterICMP, Who: all, At: at / 2})
	add(f.crash > 0, sim.Fault{Kind: sim.Crash, Who: some(f.crash), At: at})
	add(f.adjacent > 0, sim.Fault{Kind: sim.Crash, Who: sim.Who{Count: f.adjacent, Adjacent: true}, At: at})
	add(f.crashRack, sim.Fault{Kind: sim.Crash, Who: sim.Who{Zone: "zone-1", Rack: "rack-1"}, At: at})
	add(f.crashZone, sim.Fault{Kind: sim.Crash, Who: sim.Who{Zone: "zone-1"}, At: at})
	for _, text := range f.faults {
		fault, err := sim.ParseFault("fault", text)
		if err != nil {
			return nil, err
		}
		faults = append(faults, fault)
	}
	return faults, nil
}

func kinds() string { return strings.Join(sim.FaultNames()[1:], ", ") }
