package pool_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// respec changes what the row of a member says.
func (d *desk) respec(id member.ID, edit func(*member.Spec)) {
	d.t.Helper()
	d.call(func(c pool.Call) pool.Input {
		return pool.UpdateServer{Call: c, ID: id, Edit: func(s member.Spec) (member.Spec, error) {
			edit(&s)
			return s, nil
		}}
	}, pool.Call{})
	d.commitAll()
}

// firstAsk is the first question of the newest round about a member.
func (d *desk) firstAsk(id member.ID) pool.Ask {
	d.t.Helper()
	asks := d.byID[d.observers(id)[0]].asks
	return asks[len(asks)-1]
}

// Observers connect to the endpoints over TCP that are addresses, and to the probe addresses on
// all ports that the server has, in order, each once; without a port, on the one to
// which a live host refuses connects; to sixteen at the most.
func TestWhereToConnect(t *testing.T) {
	t.Parallel()
	ends := func(addresses ...string) []member.Endpoint {
		all := make([]member.Endpoint, len(addresses))
		for i, a := range addresses {
			all[i] = member.Endpoint{Name: fmt.Sprint(i), Address: a}
		}
		return all
	}
	var twelve []string
	for i := range 12 {
		twelve = append(twelve, fmt.Sprintf("10.1.0.1:%d", 1000+i))
	}
	for name, test := range map[string]struct {
		endpoints []member.Endpoint
		probe     member.Probe
		want      []string
	}{
		"no port":            {nil, member.Probe{}, []string{"10.0.0.1:9"}},
		"an address":         {ends("10.1.0.1:80"), member.Probe{}, []string{"10.0.0.1:80", "10.1.0.1:80"}},
		"a name":             {ends("web.test:443"), member.Probe{}, []string{"10.0.0.1:443"}},
		"its own address":    {ends("10.0.0.1:80"), member.Probe{}, []string{"10.0.0.1:80"}},
		"the port of probes": {nil, member.Probe{Method: member.ProbeTCP, Port: 22}, []string{"10.0.0.1:22"}},
		"both":               {ends("web.test:443"), member.Probe{Method: member.ProbeTCP, Port: 22}, []string{"10.0.0.1:22", "10.0.0.1:443"}},
		"of TCP and UDP":     {[]member.Endpoint{{Name: "play", Address: "10.1.0.1:27015", Protocol: "udp"}, {Name: "admin", Address: "web.test:80", Protocol: "http"}}, member.Probe{}, []string{"10.0.0.1:80"}},
		"of UDP":             {[]member.Endpoint{{Address: "10.1.0.1:27015", Protocol: "udp"}}, member.Probe{}, []string{"10.0.0.1:9"}},
		"twelve":             {ends(twelve...), member.Probe{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 5)
			d.respec("c", func(s *member.Spec) {
				s.ProbeAddresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
				s.Endpoints, s.Probe = test.endpoints, test.probe
			})
			d.miss("c")
			got := d.firstAsk("c").Connect
			switch {
			case test.want != nil && !slices.Equal(got, test.want):
				t.Errorf("%v, want %v", got, test.want)
			case test.want == nil && (len(got) != 16 || !slices.IsSorted(got)):
				t.Errorf("%d: %v", len(got), got)
			}
		})
	}
}

// Observers that have not measured the link wait for four times the round trip that
// the buddies see, between the bounds.
func TestTimeoutOfALink(t *testing.T) {
	t.Parallel()
	for rtt, want := range map[time.Duration]time.Duration{
		time.Millisecond: 50 * time.Millisecond, 20 * time.Millisecond: 80 * time.Millisecond, time.Second: 200 * time.Millisecond,
	} {
		d := letters(t, 5)
		row := d.table.rows["c"]
		e := evidence(up)
		e.RTT = rtt
		d.step(pool.Report{Session: d.byID[row.First].hello.Session, Subject: "c", Incarnation: row.Incarnation, Evidence: e})
		d.report(row.Second, "c", down)
		if got := d.firstAsk("c").Timeout; got != want {
			t.Errorf("round trip %v: %v, want %v", rtt, got, want)
		}
	}
	// Without any measurement, as long as may be.
	d := newDesk(t)
	for _, id := range []member.ID{"a", "b", "c"} {
		d.hello(agent(id))
		d.commitAll()
	}
	row := d.table.rows["c"]
	e := pool.Evidence{Sight: up, Sent: 1}
	d.step(pool.Report{Session: d.byID[row.First].hello.Session, Subject: "c", Incarnation: row.Incarnation, Evidence: e})
	d.commitAll()
	d.report(row.Second, "c", down)
	if got := d.firstAsk("c").Timeout; got != 200*time.Millisecond {
		t.Errorf("never measured: %v", got)
	}
}

// Probes are sixteen milliseconds apart, three at the least and thirty at the most.
func TestHowManyProbes(t *testing.T) {
	t.Parallel()
	for tolerance, want := range map[time.Duration]int{
		100 * time.Millisecond: 15, 250 * time.Millisecond: 23, 500 * time.Millisecond: 48, 2 * time.Second: 50,
	} {
		d := letters(t, 5)
		d.set(func(s *member.Settings) { s.StallTolerance = tolerance })
		d.commitAll()
		d.miss("c")
		if got := d.firstAsk("c").Probes; got != want {
			t.Errorf("tolerance %v: %d, want %d", tolerance, got, want)
		}
	}
}
