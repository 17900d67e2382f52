package sim

import (
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Options are everything that a run depends on: equal Options give equal runs.
type Options struct {
	Seed uint64
	// Servers is the size of the pool; Zones and Racks, per zone, spread them. 0 of
	// either leaves it unset.
	Servers, Zones, Racks int
	// Routers is how many routers subscribe.
	Routers  int
	Settings member.Settings
	Network  Network
	Store    Store
	// Bootstrap begins with an empty table and agents that all start within Spread,
	// instead of a pool that is full.
	Bootstrap bool
	Spread    time.Duration
	// Settle is how long the pool is left in peace before time counts, Duration how
	// long the run then takes.
	Settle, Duration time.Duration
	Faults           []Fault
	// Chaos is the share of reports, answers and echoes that reach the coordinator
	// twice, late, or out of order.
	Chaos float64
	// CheckRing checks the whole table at every revision instead of at the end.
	CheckRing bool
}

// Network is how packets fare where nothing is broken.
type Network struct {
	// Delay is one way within a zone; between zones it is double. Jitter is the mean
	// of what is added at random; one packet in 10,000 is late by 10 ms on average.
	Delay, Jitter time.Duration
	// Loss is the share of packets lost on each way between two hosts.
	Loss  float64
	Model LossModel
	// Burst is the mean length of a burst of loss, and BurstLoss the share of
	// packets lost within, for the models that have bursts.
	Burst     time.Duration
	BurstLoss float64
}

// LossModel says what loses packets together.
type LossModel uint8

// The models. Bursts are those of Gilbert and Elliott: a chain with a good state
// that loses nothing and a bad one.
const (
	// Independent loses every packet by itself.
	Independent LossModel = iota
	// LinkBursts has a chain for each way between two hosts.
	LinkBursts
	// HostBursts has one for each way of each host, which loses half of Loss, so
	// that packets between two hosts lose Loss.
	HostBursts
)

// LossModels are the names of the models.
func LossModels() []string { return []string{"independent", "link-bursts", "host-bursts"} }

// String returns the name of the model.
func (m LossModel) String() string { return LossModels()[min(m, HostBursts)] }

// ParseLossModel reads the name of a model.
func ParseLossModel(field, s string) (LossModel, error) {
	for i, name := range LossModels() {
		if s == name {
			return LossModel(i), nil
		}
	}
	return 0, member.Invalid(field, "%q is none of %v", s, LossModels())
}

// Store is how the table commits.
type Store struct {
	// Delay and Jitter are those of a commit; Row is what each row adds.
	Delay, Jitter, Row time.Duration
	// Fail is the share of commits that are rejected.
	Fail float64
	// From HangAt on, commits hang for HangFor; 0 for none.
	HangAt, HangFor time.Duration
}

// DefaultOptions are a pool of n servers in three zones of ten racks each, on a
// network of one data centre, with two routers.
func DefaultOptions(n int) Options {
	return Options{
		Seed: 1, Servers: n, Zones: 3, Racks: 10, Routers: 2, Settings: member.DefaultSettings(),
		Network: Network{
			Delay: 150 * time.Microsecond, Jitter: 50 * time.Microsecond,
			Burst: 200 * time.Millisecond, BurstLoss: 0.9,
		},
		Store:  Store{Delay: 2 * time.Millisecond, Jitter: time.Millisecond, Row: 20 * time.Microsecond},
		Spread: time.Second,
		Settle: 8 * time.Second, Duration: time.Minute,
	}
}

// MaxServers is how many servers a simulated pool may have.
const MaxServers = 200_000

// Check says what is wrong with the options.
func (o Options) Check() error {
	for _, f := range []struct {
		field         string
		value         int
		least, utmost int
	}{
		{"servers", o.Servers, 1, MaxServers},
		{"zones", o.Zones, 0, 1000},
		{"racks", o.Racks, 0, 100_000},
		{"routers", o.Routers, 1, 100},
	} {
		if f.value < f.least || f.value > f.utmost {
			return member.Invalid(f.field, "%d is not from %d to %d", f.value, f.least, f.utmost)
		}
	}
	for _, f := range []struct {
		field string
		value float64
	}{
		{"loss", o.Network.Loss}, {"burst-loss", o.Network.BurstLoss}, {"commit-fail", o.Store.Fail}, {"chaos", o.Chaos},
	} {
		if !(f.value >= 0 && f.value <= 1) {
			return member.Invalid(f.field, "%v is not from 0 to 1", f.value)
		}
	}
	if o.Network.Model != Independent && o.Network.Loss >= o.Network.BurstLoss {
		return member.Invalid("loss", "%v is not below the loss within bursts, %v", o.Network.Loss, o.Network.BurstLoss)
	}
	for _, f := range []struct {
		field string
		value time.Duration
		least time.Duration
	}{
		{"duration", o.Duration, time.Millisecond},
		{"settle", o.Settle, 0},
		{"burst", o.Network.Burst, time.Millisecond},
		{"delay", o.Network.Delay, 0},
		{"jitter", o.Network.Jitter, 0},
		{"commit-delay", o.Store.Delay, 0},
		{"commit-hang", o.Store.HangFor, 0},
	} {
		if f.value < f.least {
			return member.Invalid(f.field, "%v is less than %v", f.value, f.least)
		}
	}
	for i := range o.Faults {
		if err := o.Faults[i].check(o.Servers); err != nil {
			return err
		}
		if o.Faults[i].Kind == LengthenBursts && (o.Network.Model != HostBursts || o.Network.Loss <= 0) {
			return member.Invalid("fault", "%v needs background loss of the model %v", LengthenBursts, HostBursts)
		}
	}
	return member.CheckSettings("settings", o.Settings)
}
