package quota_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func source(address string) netip.Prefix { return quota.Source(netip.MustParseAddr(address)) }

func TestCounter(t *testing.T) {
	t.Parallel()
	c := quota.NewCounter(quota.Limits{Total: 10, PerSource: 6})
	a, b := source("192.0.2.1"), source("192.0.2.2")
	for i, step := range []struct {
		from netip.Prefix
		take int
		want quota.Limit
		held int
	}{
		{a, 6, quota.None, 6},
		{a, 1, quota.PerSource, 6},
		{b, 5, quota.Total, 6},
		{b, 4, quota.None, 10},
		{a, 1, quota.Total, 10},
		{a, 0, quota.None, 10},
		{a, -2, quota.None, 8},
		{a, 2, quota.None, 10},
	} {
		if got := c.Take(step.from, step.take); got != step.want || c.Held() != step.held {
			t.Errorf("step %d: limit %q, %d held; want %q and %d", i, got, c.Held(), step.want, step.held)
		}
	}
	c.Return(a, 6)
	c.Return(b, 4)
	if got := c.Take(b, 6); got != quota.None || c.Held() != 6 {
		t.Errorf("after all was given back: limit %q, %d held", got, c.Held())
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1":                  "192.0.2.1/32",
		"::ffff:192.0.2.1":           "192.0.2.1/32",
		"2001:db8:1:2:3::4":          "2001:db8:1:2::/64",
		"fe80::1%eth0":               "fe80::/64",
		"127.0.0.1":                  "127.0.0.1/32",
		"::1":                        "::/64",
		"2001:db8:1:2:ffff:ffff::99": "2001:db8:1:2::/64",
	} {
		if got := source(in); got.String() != want {
			t.Errorf("%s is of %s, want %s", in, got, want)
		}
	}
	want := source("192.0.2.1")
	for _, peer := range []net.Addr{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2}} {
		if got := quota.SourceOf(peer); got != want {
			t.Errorf("%s is of %s, want %s", peer, got, want)
		}
	}
	if got := quota.SourceOf(&net.UnixAddr{}); got.IsValid() {
		t.Errorf("no IP address is of %s", got)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	if got := quota.Halves(7); got != (quota.Limits{Total: 7, PerSource: 4}) {
		t.Errorf("halves of 7: %v", got)
	}
	if got := (quota.Limits{Total: 5}).Or(quota.Limits{Total: 8, PerSource: 2}); got != (quota.Limits{Total: 5, PerSource: 2}) {
		t.Errorf("some are given: %v", got)
	}
	for flag, l := range map[string]quota.Limits{"max-connections": {Total: -1}, "max-connections-per-source": {PerSource: -1}} {
		var bad *member.FieldError
		if err := l.Check(); !errors.As(err, &bad) || bad.Field != flag {
			t.Errorf("%v: %v", l, err)
		}
	}
	if err := (quota.Limits{}).Check(); err != nil {
		t.Error(err)
	}
}
