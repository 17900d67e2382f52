package member_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

func TestParseID(t *testing.T) {
	t.Parallel()
	good := []string{"a", "0", "web-1", "web-1.eu.example", strings.Repeat("a", 63), strings.Repeat("a.", 126) + "a"}
	bad := []string{
		"", "-a", "a-", "Web-1", "web_1", "web 1", "web-1 ", "résumé", "a..b", ".a", "a.", "a/b", "a\x00b",
		strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a",
	}
	for _, s := range good {
		if id, err := member.ParseID("server_id", s); err != nil || string(id) != s {
			t.Errorf("ParseID(%q) = %q, %v", s, id, err)
		}
	}
	for _, s := range bad {
		wantField(t, fmt.Sprintf("ParseID(%q)", s), second(member.ParseID("server_id", s)), "server_id")
	}
}

func TestParsePool(t *testing.T) {
	t.Parallel()
	if _, err := member.ParsePool("pool", "web-eu"); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"", "a.b", "A", "-", strings.Repeat("a", 64)} {
		wantField(t, fmt.Sprintf("ParsePool(%q)", s), second(member.ParsePool("pool", s)), "pool")
	}
}

func TestParseProbe(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]member.Probe{
		"":             {},
		"icmp":         {},
		"tcp://:80":    {Method: member.ProbeTCP, Port: 80},
		"tcp://:65535": {Method: member.ProbeTCP, Port: 65535},
	} {
		if got, err := member.ParseProbe("probe", in); err != nil || got != want {
			t.Errorf("ParseProbe(%q) = %v, %v", in, got, err)
		}
	}
	for _, s := range []string{"tcp://:0", "tcp://:65536", "tcp://host:80", "tcp:80", "udp://:80", "ICMP", "tcp://:-1", "tcp://:"} {
		wantField(t, fmt.Sprintf("ParseProbe(%q)", s), second(member.ParseProbe("probe", s)), "probe")
	}
}

func TestParseProbeAddress(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"} {
		if _, err := member.ParseProbeAddress("a", s, false); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"", "web-1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1%eth0", "10.0.0.1:80"} {
		wantField(t, s, second(member.ParseProbeAddress("a", s, true)), "a")
	}
	for _, s := range []string{"127.0.0.1", "::1", "169.254.1.1", "fe80::1"} {
		wantField(t, s, second(member.ParseProbeAddress("a", s, false)), "a")
		if _, err := member.ParseProbeAddress("a", s, true); err != nil {
			t.Errorf("%s is allowed where local addresses are: %v", s, err)
		}
	}
}

func goodSpec() member.Spec {
	return member.Spec{
		ProbeAddresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")},
		Endpoints:      []member.Endpoint{{Address: "10.0.0.1:80"}, {Name: "admin", Address: "web-1.example:81", Protocol: "http"}},
		Zone:           "a", Rack: "a1", Weight: 100, Labels: map[string]string{"team": "shop"},
	}
}

func TestCheckSpec(t *testing.T) {
	t.Parallel()
	if err := member.CheckSpec("spec", goodSpec()); err != nil {
		t.Fatalf("a good spec: %v", err)
	}
	many := map[string]string{}
	for i := range 33 {
		many[fmt.Sprintf("k%d", i)] = "v"
	}
	for name, c := range map[string]struct {
		field  string
		change func(*member.Spec)
	}{
		"no address":         {"spec.probe_addresses", func(s *member.Spec) { s.ProbeAddresses = nil }},
		"two of a family":    {"spec.probe_addresses", func(s *member.Spec) { s.ProbeAddresses[1] = netip.MustParseAddr("10.0.0.2") }},
		"weight":             {"spec.weight", func(s *member.Spec) { s.Weight = 10_001 }},
		"zone":               {"spec.zone", func(s *member.Spec) { s.Zone = "A" }},
		"rack":               {"spec.rack", func(s *member.Spec) { s.Rack = "a 1" }},
		"no port":            {"spec.endpoints.address", func(s *member.Spec) { s.Endpoints[0].Address = "10.0.0.1" }},
		"port 0":             {"spec.endpoints.address", func(s *member.Spec) { s.Endpoints[0].Address = "10.0.0.1:0" }},
		"any address":        {"spec.endpoints.address", func(s *member.Spec) { s.Endpoints[0].Address = "0.0.0.0:80" }},
		"host with a space":  {"spec.endpoints.address", func(s *member.Spec) { s.Endpoints[0].Address = "a b:80" }},
		"endpoint twice":     {"spec.endpoints.name", func(s *member.Spec) { s.Endpoints[1].Name = "" }},
		"endpoint name":      {"spec.endpoints.name", func(s *member.Spec) { s.Endpoints[1].Name = "Admin" }},
		"protocol":           {"spec.endpoints.protocol", func(s *member.Spec) { s.Endpoints[1].Protocol = "h2 c" }},
		"too many endpoints": {"spec.endpoints", func(s *member.Spec) { s.Endpoints = make([]member.Endpoint, 17) }},
		"too many labels":    {"spec.labels", func(s *member.Spec) { s.Labels = many }},
		"too long labels":    {"spec.labels", func(s *member.Spec) { s.Labels["x"] = strings.Repeat("v", 4096) }},
		"label key":          {"spec.labels", func(s *member.Spec) { s.Labels["Team"] = "x" }},
		"label value":        {"spec.labels", func(s *member.Spec) { s.Labels["x"] = "a\nb" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := goodSpec()
			c.change(&s)
			wantField(t, name, member.CheckSpec("spec", s), c.field)
		})
	}
}

func TestCheckSettings(t *testing.T) {
	t.Parallel()
	if err := member.CheckSettings("settings", member.DefaultSettings()); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*member.Settings){
		"settings.mode":            func(s *member.Settings) { s.Mode = member.ModeUnspecified },
		"settings.probe_interval":  func(s *member.Settings) { s.ProbeInterval = 99 * time.Millisecond },
		"settings.stall_tolerance": func(s *member.Settings) { s.StallTolerance = 0 },
		"settings.removal_grace":   func(s *member.Settings) { s.RemovalGrace = -1 },
		"settings.hold_down":       func(s *member.Settings) { s.HoldDown = 2 * time.Hour },
		"settings.hold_down_max":   func(s *member.Settings) { s.HoldDownMax = time.Second },
	} {
		s := member.DefaultSettings()
		change(&s)
		wantField(t, field, member.CheckSettings("settings", s), field)
	}
}

func TestNamesRoundTrip(t *testing.T) {
	t.Parallel()
	for p := member.PhaseJoining; p <= member.PhaseHeld; p++ {
		if got, err := member.ParsePhase(p.String()); err != nil || got != p {
			t.Errorf("phase %v: %v, %v", p, got, err)
		}
	}
	for c := member.CauseCrashed; c <= member.CauseOperator; c++ {
		if got, err := member.ParseCause(c.String()); err != nil || got != c {
			t.Errorf("cause %v: %v, %v", c, got, err)
		}
	}
	for w := member.WishActive; w <= member.WishBanned; w++ {
		if got, err := member.ParseWish(w.String()); err != nil || got != w {
			t.Errorf("wish %v: %v, %v", w, got, err)
		}
	}
	for m := member.ModeEnforce; m <= member.ModePaused; m++ {
		if got, err := member.ParseMode(m.String()); err != nil || got != m {
			t.Errorf("mode %v: %v, %v", m, got, err)
		}
	}
	wantField(t, "phase", second(member.ParsePhase("dead")), "phase")
}

func TestErrorsKeepTheirKind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ err, kind error }{
		{member.Invalid("f", "bad"), member.ErrInvalid},
		{&member.RefusedError{Rule: "floor"}, member.ErrRefused},
		{&member.NotLeaderError{Leader: "db-1:7400"}, member.ErrNotLeader},
	} {
		if !errors.Is(fmt.Errorf("do something: %w", c.err), c.kind) {
			t.Errorf("%v is not %v", c.err, c.kind)
		}
	}
}

// FuzzParse: whatever is accepted is printed as it was read, and nothing
// panics.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"web-1", "a.b", "tcp://:80", "10.0.0.1:80", "[::1]:80", "fe80::1%x", "Web"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := member.ParseID("id", s); err == nil && (string(id) != s || strings.ToLower(s) != s) {
			t.Errorf("ParseID(%q) = %q", s, id)
		}
		if p, err := member.ParseProbe("probe", s); err == nil && s != "" {
			if again, err := member.ParseProbe("probe", p.String()); err != nil || again != p {
				t.Errorf("ParseProbe(%q) = %v, which reads back as %v, %v", s, p, again, err)
			}
		}
		if a, err := member.ParseProbeAddress("a", s, true); err == nil && (!a.IsValid() || a.IsMulticast() || a.Zone() != "") {
			t.Errorf("ParseProbeAddress(%q) = %v", s, a)
		}
		_ = member.CheckHostPort("address", s)
	})
}

func second[T any](_ T, err error) error { return err }

func wantField(t *testing.T, what string, err error, field string) {
	t.Helper()
	var fe *member.FieldError
	if !errors.As(err, &fe) || fe.Field != field {
		t.Errorf("%s: error %v does not name the field %s", what, err, field)
	}
}

func TestEndpointOverTCP(t *testing.T) {
	t.Parallel()
	for protocol, want := range map[string]bool{"": true, "tcp": true, "http": true, "grpc": true, "udp": false, "quic": false, "h3": false, "dns": false} {
		if got := (member.Endpoint{Protocol: protocol}).OverTCP(); got != want {
			t.Errorf("%q: %v", protocol, got)
		}
	}
}
