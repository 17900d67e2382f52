package member

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Limits of what a server may say about itself.
const (
	MaxNameLength  = 63
	MaxIDLength    = 253
	MaxEndpoints   = 16
	MaxLabels      = 32
	MaxLabelBytes  = 4096
	MaxWeight      = 10_000
	DefaultWeight  = 100
	MaxReasonBytes = 1024
)

// ParsePool checks a pool name: [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?.
func ParsePool(field, s string) (Pool, error) {
	if err := checkLabel(field, s); err != nil {
		return "", err
	}
	return Pool(s), nil
}

// ParseID checks a server or router id: labels of the pool grammar joined by
// dots, at most 253 bytes.
func ParseID(field, s string) (ID, error) {
	if len(s) > MaxIDLength {
		return "", Invalid(field, "has %d bytes; at most %d are allowed", len(s), MaxIDLength)
	}
	for part := range strings.SplitSeq(s, ".") {
		if err := checkLabel(field, part); err != nil {
			return "", err
		}
	}
	return ID(s), nil
}

func checkLabel(field, s string) error {
	if s == "" {
		return Invalid(field, "must not be empty")
	}
	if len(s) > MaxNameLength {
		return Invalid(field, "has a part of %d bytes; at most %d are allowed", len(s), MaxNameLength)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return Invalid(field, "%q: only a-z, 0-9 and inner hyphens are allowed, not %q at byte %d", s, c, i)
		}
	}
	return nil
}

// ProbeMethod is how a server is probed.
type ProbeMethod uint8

// The methods. ICMP is the zero value.
const (
	ProbeICMP ProbeMethod = iota
	ProbeTCP
)

// Probe is how a server's buddies probe it. The zero value is ICMP.
type Probe struct {
	Method ProbeMethod
	// Port is the TCP port; 0 for ICMP.
	Port uint16
}

// String returns "icmp" or "tcp://:PORT".
func (p Probe) String() string {
	if p.Method == ProbeTCP {
		return "tcp://:" + strconv.Itoa(int(p.Port))
	}
	return "icmp"
}

// ParseProbe reads "icmp", "" (the same) or "tcp://:PORT".
func ParseProbe(field, s string) (Probe, error) {
	if s == "" || s == "icmp" {
		return Probe{}, nil
	}
	if rest, ok := strings.CutPrefix(s, "tcp://:"); ok {
		if n, err := strconv.ParseUint(rest, 10, 16); err == nil && n > 0 {
			return Probe{Method: ProbeTCP, Port: uint16(n)}, nil
		}
	}
	return Probe{}, Invalid(field, "%q is neither icmp nor tcp://:PORT", s)
}

// ParseProbeAddress reads a unicast address without a zone. Loopback and
// link-local addresses are refused unless allowLocal is set.
func ParseProbeAddress(field, s string, allowLocal bool) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, Invalid(field, "%q is not an IP address", s)
	}
	a = a.Unmap()
	switch {
	case a.Zone() != "":
		return netip.Addr{}, Invalid(field, "%q must not have a zone", s)
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, Invalid(field, "%q is not a unicast address", s)
	case !allowLocal && (a.IsLoopback() || a.IsLinkLocalUnicast()):
		return netip.Addr{}, Invalid(field, "%q is a loopback or link-local address, which other hosts cannot ping: "+
			"give the agent a --probe-address, or, for trials on one host, coordinator and agents --allow-local-addresses", s)
	}
	return a, nil
}

// CheckSpec checks everything but the addresses' scope, which the caller knows.
// Fields are named below prefix, as in "hello.spec.weight".
func CheckSpec(prefix string, s Spec) error {
	if len(s.ProbeAddresses) == 0 {
		return Invalid(prefix+".probe_addresses", "at least one is needed")
	}
	var four, six int
	for _, a := range s.ProbeAddresses {
		if a.Is4() {
			four++
		} else {
			six++
		}
	}
	if four > 1 || six > 1 {
		return Invalid(prefix+".probe_addresses", "at most one per address family is allowed")
	}
	if s.Weight > MaxWeight {
		return Invalid(prefix+".weight", "%d is more than %d", s.Weight, MaxWeight)
	}
	for _, f := range []struct{ name, value string }{{"zone", s.Zone}, {"rack", s.Rack}} {
		if f.value != "" {
			if _, err := ParseID(prefix+"."+f.name, f.value); err != nil {
				return err
			}
		}
	}
	if err := checkEndpoints(prefix+".endpoints", s.Endpoints); err != nil {
		return err
	}
	return checkLabels(prefix+".labels", s.Labels)
}

func checkEndpoints(field string, endpoints []Endpoint) error {
	if len(endpoints) > MaxEndpoints {
		return Invalid(field, "has %d entries; at most %d are allowed", len(endpoints), MaxEndpoints)
	}
	seen := make(map[string]bool, len(endpoints))
	for _, e := range endpoints {
		if e.Name != "" {
			if err := checkLabel(field+".name", e.Name); err != nil {
				return err
			}
		}
		if e.Protocol != "" {
			if err := checkLabel(field+".protocol", e.Protocol); err != nil {
				return err
			}
		}
		if seen[e.Name] {
			return Invalid(field+".name", "%q is there twice", e.Name)
		}
		seen[e.Name] = true
		if err := CheckHostPort(field+".address", e.Address); err != nil {
			return err
		}
	}
	return nil
}

// CheckHostPort checks HOST:PORT, where HOST is a unicast IP address or a DNS
// name and PORT is 1 to 65535.
func CheckHostPort(field, s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Invalid(field, "%q is not HOST:PORT", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Invalid(field, "%q: the port must be 1 to 65535", s)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return Invalid(field, "%q is not a unicast address", s)
		}
		return nil
	}
	if len(host) == 0 || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}) {
		return Invalid(field, "%q: the host is neither an IP address nor a DNS name", s)
	}
	return nil
}

func checkLabels(field string, labels map[string]string) error {
	if len(labels) > MaxLabels {
		return Invalid(field, "has %d entries; at most %d are allowed", len(labels), MaxLabels)
	}
	total := 0
	for k, v := range labels {
		if _, err := ParseID(field, k); err != nil {
			return err
		}
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
			return Invalid(field, "the value of %q has a control character", k)
		}
		total += len(k) + len(v)
	}
	if total > MaxLabelBytes {
		return Invalid(field, "has %d bytes; at most %d are allowed", total, MaxLabelBytes)
	}
	return nil
}

// CheckSettings checks the ranges of a pool's settings. Fields are named below
// prefix, as in "settings.probe_interval".
func CheckSettings(prefix string, s Settings) error {
	if s.Mode == ModeUnspecified || s.Mode > ModePaused {
		return Invalid(prefix+".mode", "must be set")
	}
	for _, f := range []struct {
		name          string
		value         time.Duration
		least, utmost time.Duration
	}{
		{"probe_interval", s.ProbeInterval, 100 * time.Millisecond, 10 * time.Second},
		{"stall_tolerance", s.StallTolerance, 100 * time.Millisecond, time.Minute},
		{"removal_grace", s.RemovalGrace, 0, 10 * time.Minute},
		{"hold_down", s.HoldDown, 0, time.Hour},
		{"hold_down_max", s.HoldDownMax, 0, 24 * time.Hour},
		{"hold_down_loss", s.HoldDownLoss, 0, time.Hour},
		{"brake_window", s.BrakeWindow, time.Second, time.Hour},
	} {
		if f.value < f.least || f.value > f.utmost {
			return Invalid(prefix+"."+f.name, "%v is not within %v and %v", f.value, f.least, f.utmost)
		}
	}
	for _, f := range []struct {
		name          string
		value, utmost int
	}{
		{"brake_least", s.BrakeLeast, 1_000_000},
		{"brake_percent", s.BrakePercent, 100},
		{"brake_rack_percent", s.BrakeRackPercent, 100},
		{"brake_zone_percent", s.BrakeZonePercent, 100},
		{"floor_percent", s.FloorPercent, 100},
		{"held_percent", s.HeldPercent, 100},
	} {
		if f.value < 0 || f.value > f.utmost {
			return Invalid(prefix+"."+f.name, "%d is not within 0 and %d", f.value, f.utmost)
		}
	}
	if s.HoldDownMax < s.HoldDown {
		return Invalid(prefix+".hold_down_max", "%v is less than hold_down, %v", s.HoldDownMax, s.HoldDown)
	}
	return nil
}
