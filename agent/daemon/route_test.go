package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
)

// TestRoutesWithoutNames: a family of a name that cannot be resolved for a while is
// not lost, and one that the name has no more is.
func TestRoutesWithoutNames(t *testing.T) {
	t.Parallel()
	home := netip.MustParseAddr("127.0.0.1")
	timeout := &net.DNSError{Err: "i/o timeout", Name: "coordinators", IsTimeout: true, IsTemporary: true}
	gone := &net.DNSError{Err: "no such host", Name: "coordinators", IsNotFound: true}
	var answer []netip.Addr
	var failure error
	r := newRoutes(true)
	r.lookup = func(_ context.Context, network, _ string) ([]netip.Addr, error) {
		if network == "ip6" {
			return nil, gone
		}
		return answer, failure
	}
	for i, step := range []struct {
		answer  []netip.Addr
		failure error
		want    []netip.Addr
	}{
		{nil, timeout, nil},
		{[]netip.Addr{home}, nil, []netip.Addr{home}},
		{nil, timeout, []netip.Addr{home}},
		{nil, timeout, []netip.Addr{home}},
		{nil, gone, nil},
		{nil, timeout, nil},
	} {
		answer, failure = step.answer, step.failure
		if got := r.find(t.Context(), "coordinators:7400"); !slices.Equal(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	answer, failure = []netip.Addr{home}, nil
	for i := range 3 * maxNames {
		r.find(t.Context(), fmt.Sprintf("coordinator-%d:7400", i))
	}
	if len(r.known) > maxNames {
		t.Errorf("%d names are known", len(r.known))
	}
}

// TestRoutesWithSilentNames: a resolver that uses up all the time costs no family.
func TestRoutesWithSilentNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		silent := false
		r := newRoutes(true)
		r.lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error) {
			if silent {
				<-ctx.Done()
				return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host, IsTimeout: true}
			}
			if network == "ip6" {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			return home, nil
		}
		for range 2 {
			if got := r.find(t.Context(), "coordinators:7400"); !slices.Equal(got, home) {
				t.Errorf("silent %v: %v", silent, got)
			}
			silent = true
		}
	})
}

// TestRoutesPassByUnreachable: the first address of a name may lead nowhere.
func TestRoutesPassByUnreachable(t *testing.T) {
	t.Parallel()
	r := newRoutes(true)
	r.lookup = func(_ context.Context, network, _ string) ([]netip.Addr, error) {
		if network == "ip6" {
			return nil, &net.AddrError{Err: "no suitable address", Addr: "coordinators"}
		}
		return []netip.Addr{netip.MustParseAddr("fe80::1"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	if got := r.find(t.Context(), "coordinators:7400"); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("127.0.0.1")}) {
		t.Errorf("got %v", got)
	}
}
