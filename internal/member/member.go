package member

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// ID names a server within its pool; see ParseID for its grammar.
type ID string

// Pool names a pool; see ParsePool for its grammar.
type Pool string

// DefaultPool is the pool that exists without being created.
const DefaultPool Pool = "default"

// Epoch counts leaders. Effects of a lower epoch are void everywhere.
type Epoch uint64

// Revision counts the durable changes of one pool. It comes from the pool's
// fence row, never from a clock or an AUTO_INCREMENT.
type Revision uint64

// Incarnation is the revision of the join that made a membership. It is the
// fencing token of a server: a removed incarnation never comes back. Zero means
// "none yet".
type Incarnation uint64

// Position is a point in the history of one pool.
type Position struct {
	Epoch    Epoch
	Revision Revision
}

// Phase is the durable state of a member.
type Phase uint8

// The phases. JOINING and HELD members are in the ring and watched but not
// routed; SERVICE_DOWN members stay in the ring as watchers.
const (
	PhaseUnspecified Phase = iota
	PhaseJoining
	PhaseActive
	PhaseServiceDown
	PhaseDraining
	PhaseHeld
)

// Cause says why a server left its pool.
type Cause uint8

// The causes of removal.
const (
	CauseUnspecified Cause = iota
	CauseCrashed
	CauseUnreachable
	CauseLossy
	CauseShutdown
	CauseOperator
)

// ByVerdict reports whether the cause is a judgement by observers rather than
// the wish of the server or of an operator.
func (c Cause) ByVerdict() bool {
	return c == CauseCrashed || c == CauseUnreachable || c == CauseLossy
}

// Wish is what an operator wants for an id, whether or not it is a member.
type Wish uint8

// The wishes. MAINTENANCE is routed but not judged; BANNED may not join.
const (
	WishUnspecified Wish = iota
	WishActive
	WishDrain
	WishMaintenance
	WishBanned
)

// Mode says what a pool does with a confirmed verdict.
type Mode uint8

// The modes. SHADOW decides, records and explains but removes nobody; PAUSED
// judges nobody.
const (
	ModeUnspecified Mode = iota
	ModeEnforce
	ModeShadow
	ModePaused
)

// Endpoint is an address at which clients reach a server's service.
type Endpoint struct {
	// Name is unique among the server's endpoints; "" is the only unnamed one.
	Name string `json:"name,omitempty"`
	// Address is HOST:PORT; HOST is an IP address or a DNS name.
	Address string `json:"address"`
	// Protocol is a hint for clients, such as "http" or "grpc"; may be empty. See
	// OverTCP.
	Protocol string `json:"protocol,omitempty"`
}

// OverTCP reports whether a TCP connect to the endpoint says something about it:
// whether its protocol is known to run over TCP, or empty.
func (e Endpoint) OverTCP() bool {
	switch e.Protocol {
	case "", "tcp", "tls", "ssl", "http", "https", "http1", "http2", "h2", "h2c", "ws", "wss", "grpc", "grpcs",
		"ssh", "ftp", "smtp", "imap", "ldap", "ldaps", "redis", "rediss", "memcached", "mysql", "mariadb", "postgres", "postgresql",
		"mongodb", "cassandra", "kafka", "amqp", "amqps", "mqtt", "mqtts", "nats", "thrift":
		return true
	}
	return false
}

// Spec is what a server says about itself when it joins and what an operator
// may update.
type Spec struct {
	// ProbeAddresses are what buddies ping: at most one per address family.
	// The server is down only when all of them fail.
	ProbeAddresses []netip.Addr
	// Probe is how buddies probe this server.
	Probe Probe
	// Endpoints may be empty: such a server is watched, but not routed to.
	Endpoints []Endpoint
	Zone      string
	// Rack is the failure domain within the zone. An unset rack is a rack of one.
	Rack string
	// Weight is the share of new work relative to the default of 100; 0 means
	// no new work.
	Weight uint32
	Labels map[string]string
}

// Clone returns a deep copy.
func (s Spec) Clone() Spec {
	s.ProbeAddresses = slices.Clone(s.ProbeAddresses)
	s.Endpoints = slices.Clone(s.Endpoints)
	s.Labels = maps.Clone(s.Labels)
	return s
}

// Equal reports whether two specs say the same.
func (s Spec) Equal(o Spec) bool {
	return slices.Equal(s.ProbeAddresses, o.ProbeAddresses) && s.Probe == o.Probe &&
		slices.Equal(s.Endpoints, o.Endpoints) && s.Zone == o.Zone && s.Rack == o.Rack &&
		s.Weight == o.Weight && maps.Equal(s.Labels, o.Labels)
}

// Server is one row of the server table.
type Server struct {
	ID          ID
	Incarnation Incarnation
	Phase       Phase
	// First is the next server on the ring, Second the previous one. Both are
	// empty in a pool of one, and equal in a pool of two.
	First, Second ID
	Spec          Spec
	// BootID identifies the boot of the host; InstanceID the run of the agent
	// that joined.
	BootID, InstanceID string
	// Identity is the certificate's URI SAN by which the server joined, or ""
	// without TLS.
	Identity string
	// JoinedAt is when this incarnation joined, HeldUntil when a HELD phase ends
	// (zero otherwise); both by the coordinator's wall clock, for people and for
	// a restarted coordinator.
	JoinedAt, HeldUntil time.Time
	// Since is when the server entered its present phase.
	Since time.Time
}

// Clone returns a deep copy.
func (s Server) Clone() Server {
	s.Spec = s.Spec.Clone()
	return s
}

// Intent is an operator's wish for an id. It is kept by pool and id and
// survives removal, rejoin, reboot and failover.
type Intent struct {
	ID     ID
	Wish   Wish
	Reason string
	Actor  string
	SetAt  time.Time
	// ExpiresAt is zero for a wish without an end.
	ExpiresAt time.Time
}

// Departed is what is remembered of a server that left by verdict.
type Departed struct {
	ID          ID
	Incarnation Incarnation
	Cause       Cause
	BootID      string
	LeftAt      time.Time
	// FlapScore counts removals with a half-life; it is the score at LeftAt.
	FlapScore float64
	// HoldDown is how long a return is held once the server has come back.
	HoldDown time.Duration
}

// Settings are the operator's settings of a pool. Zero fields are not allowed:
// use DefaultSettings.
type Settings struct {
	Mode Mode `json:"mode"`
	// ProbeInterval is the period T at which each watcher probes its subject.
	ProbeInterval time.Duration `json:"probe_interval"`
	// StallTolerance is the shortest stretch of time over which confirming
	// probes must fail, counted from the first lost probe.
	StallTolerance time.Duration `json:"stall_tolerance"`
	// RemovalGrace delays removal, never the SUSPECT mark.
	RemovalGrace time.Duration `json:"removal_grace"`
	// HoldDown is the first hold-down after a crash; it doubles with each
	// removal up to HoldDownMax.
	HoldDown    time.Duration `json:"hold_down"`
	HoldDownMax time.Duration `json:"hold_down_max"`
	// HoldDownLoss is the first hold-down after a removal for loss, or of a server
	// that comes back without having rebooted.
	HoldDownLoss time.Duration `json:"hold_down_loss"`
	// BrakeLeast is a number of servers; the percentages are of the pool, and
	// BrakeZonePercent of a zone. 100 switches one off. See verdict.Brake.
	BrakeLeast       int           `json:"brake_least"`
	BrakePercent     int           `json:"brake_percent"`
	BrakeRackPercent int           `json:"brake_rack_percent"`
	BrakeZonePercent int           `json:"brake_zone_percent"`
	BrakeWindow      time.Duration `json:"brake_window"`
	// FloorPercent of the reference size may be lost by verdict and not be back;
	// one server always may. 100 switches the floor off.
	FloorPercent int `json:"floor_percent"`
	// HeldPercent of the pool may be HELD at once; one server always may.
	HeldPercent int `json:"held_percent"`
}

// DefaultSettings are the settings of a new pool.
func DefaultSettings() Settings {
	return Settings{
		Mode:           ModeEnforce,
		ProbeInterval:  500 * time.Millisecond,
		StallTolerance: 500 * time.Millisecond,
		HoldDown:       5 * time.Second,
		HoldDownMax:    5 * time.Minute,
		HoldDownLoss:   30 * time.Second,

		BrakeLeast:       3,
		BrakePercent:     10,
		BrakeRackPercent: 25,
		BrakeZonePercent: 33,
		BrakeWindow:      time.Minute,
		FloorPercent:     50,
		HeldPercent:      10,
	}
}

// PoolState is the durable state of one pool as a leader loads it.
type PoolState struct {
	Name     Pool
	Position Position
	// LastChange is the id of the change that led to Position.
	LastChange string
	Settings   Settings
	// ReferenceSize is the size the pool is meant to have; see the floor rule.
	ReferenceSize int
	Servers       []Server
	Intents       []Intent
	Departed      []Departed
	// Unreadable says which row of the pool cannot be read, and why; nil where all
	// could be. Then nothing but the name is to be relied on.
	Unreadable error
}

// Mark is soft state about one incarnation: it is suspect, or its service is
// down. Marks are fenced by epoch, ordered by Seq, and expire unless renewed. The
// newest mark of a server replaces those before it.
type Mark struct {
	ID          ID
	Incarnation Incarnation
	// Suspect and ServiceDown are both false in a mark that clears an earlier one.
	Suspect, ServiceDown bool
	Epoch                Epoch
	Seq                  uint64
	Since                time.Time
	// TTL is how long the mark holds from its receipt; zero when clearing.
	TTL time.Duration
}
