package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/agent/checker"
	"github.com/buddyring/buddyring/internal/config"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/internal/version"
)

// Defaults of the flags.
const (
	defaultHTTPPort     = 7602
	defaultLeaveTimeout = 10 * time.Second
	defaultDrainTimeout = 10 * time.Second
	systemStateDir      = "/var/lib/buddyring/agent"
)

// maxDrainTimeout is the longest that a coordinator lets a drain take.
const maxDrainTimeout = 10 * time.Minute

// maxChecks bounds what an agent does every second.
const maxChecks = 16

// options are the flags as they were given.
type options struct {
	coordinators   []string
	pool, id       string
	probeAddresses []string
	probe          string
	endpoints      []string
	zone, rack     string
	weight         uint32
	labels         []string
	checks         []string
	onRemoved      string
	stateDir       string
	httpListen     string
	onTerm         string
	leaveTimeout   time.Duration
	drainTimeout   time.Duration
	bootIDFile     string
	allowLocal     bool
	security       rpc.Security
	log            observe.LogConfig
}

func (o *options) define(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringSliceVar(&o.coordinators, "coordinator", []string{"127.0.0.1:7400"},
		"HOST:PORT of the coordinators, tried in order and in turn")
	flags.StringVar(&o.pool, "pool", "", "the pool to join (default: that of --tls-cert, or else \"default\")")
	flags.StringVar(&o.id, "id", "", "the server's id (default: the name in --tls-cert, or else the lower-cased host name)")
	flags.StringSliceVar(&o.probeAddresses, "probe-address", nil,
		"address that buddies ping, at most one per family (default: the source address of the route to the coordinator)")
	flags.StringVar(&o.probe, "probe", "icmp", "how buddies probe this server: icmp or tcp://:PORT")
	flags.StringArrayVar(&o.endpoints, "endpoint", nil,
		"[NAME=][PROTOCOL://]HOST:PORT where clients reach the service; repeatable")
	flags.StringVar(&o.zone, "zone", "", "zone of the host")
	flags.StringVar(&o.rack, "rack", "", "failure domain within the zone")
	flags.Uint32Var(&o.weight, "weight", member.DefaultWeight, "share of new work relative to 100; 0 for none")
	flags.StringArrayVar(&o.labels, "label", nil, "KEY=VALUE; repeatable")
	flags.StringArrayVar(&o.checks, "check", nil,
		"check of the service, every second: tcp://HOST:PORT, http://... or https://..., grpc://HOST:PORT[/SERVICE], exec:COMMAND; repeatable")
	flags.StringVar(&o.onRemoved, "on-removed", "",
		"command to run when others have taken this server out of the pool, before it joins again (default: none)")
	flags.StringVar(&o.stateDir, "state-dir", "",
		"directory for the buddy list (default: $STATE_DIRECTORY, "+systemStateDir+" for root, or else ~/.local/state/buddyring/agent)")
	flags.StringVar(&o.httpListen, "http-listen", "",
		"HOST:PORT of the HTTP listener for /metrics, /livez and /readyz (default 127.0.0.1:7602, or :7602 with TLS)")
	flags.StringVar(&o.onTerm, "on-term", string(onTermAuto),
		"at SIGTERM: leave the pool, detach (stay in the pool), or auto: leave, but detach where systemd restarts the agent")
	flags.DurationVar(&o.leaveTimeout, "leave-timeout", defaultLeaveTimeout,
		"how long to wait, beyond --drain-timeout, for the pool to let the server go")
	flags.DurationVar(&o.drainTimeout, "drain-timeout", defaultDrainTimeout,
		"at a leave: how long routers may take to confirm that they send the server nothing more; 0 leaves at once, even if too many others are away")
	flags.StringVar(&o.bootIDFile, "boot-id-file", defaultBootIDFile, "file with an id of this boot of the host")
	flags.BoolVar(&o.allowLocal, "allow-local-addresses", false,
		"be pinged at a loopback or link-local address if that is the route to the coordinator, for trials on one host")
	config.SecurityFlags(flags, &o.security)
	config.LogFlags(flags, &o.log)
}

// settings are options that were parsed.
type settings struct {
	agent        Config
	stateDir     string
	httpListen   string
	onTerm       onTerm
	leaveTimeout time.Duration
	onRemoved    string
	allowLocal   bool
	credentials  *rpc.Credentials
}

// parse turns the flags into settings, filling in the defaults that depend on
// the host or on TLS. It changes nothing. Errors name the flag.
func (o *options) parse(log *slog.Logger) (settings, error) {
	credentials, err := rpc.NewCredentials(o.security, log)
	if err != nil {
		return settings{}, err
	}
	s := settings{
		stateDir: o.stateDir, httpListen: o.httpListen, leaveTimeout: o.leaveTimeout, onRemoved: o.onRemoved,
		allowLocal: o.allowLocal, credentials: credentials,
	}
	if s.httpListen == "" {
		s.httpListen = credentials.DefaultAddress(defaultHTTPPort)
	}
	if err := credentials.CheckListen("http-listen", s.httpListen); err != nil {
		return settings{}, err
	}
	if s.stateDir == "" {
		if s.stateDir, err = defaultStateDir(os.Getenv, os.Geteuid()); err != nil {
			return settings{}, err
		}
	}
	if s.onTerm, err = parseOnTerm(o.onTerm); err != nil {
		return settings{}, err
	}
	if s.leaveTimeout <= 0 {
		return settings{}, member.Invalid("leave-timeout", "%v is not above zero", s.leaveTimeout)
	}
	if o.drainTimeout < 0 || o.drainTimeout > maxDrainTimeout {
		return settings{}, member.Invalid("drain-timeout", "%v is not between 0 and %v", o.drainTimeout, maxDrainTimeout)
	}
	s.agent, err = o.parseAgent(credentials)
	s.agent.DrainTimeout = o.drainTimeout
	return s, err
}

func (o *options) parseAgent(credentials *rpc.Credentials) (Config, error) {
	cfg := Config{Version: version.String(), Coordinators: o.coordinators}
	var err error
	if cfg.Pool, cfg.ID, err = o.parseName(credentials); err != nil {
		return Config{}, err
	}
	if len(cfg.Coordinators) == 0 {
		return Config{}, member.Invalid("coordinator", "at least one HOST:PORT is needed")
	}
	for _, c := range cfg.Coordinators {
		if err := member.CheckHostPort("coordinator", c); err != nil {
			return Config{}, err
		}
	}
	if cfg.Spec, err = o.parseSpec(); err != nil {
		return Config{}, err
	}
	if cfg.Checks, err = parseChecks(o.checks); err != nil {
		return Config{}, err
	}
	cfg.BootID, err = readBootID(o.bootIDFile)
	return cfg, err
}

// parseName finds out whom the agent speaks for. A certificate must say the
// same as the flags, or nobody would believe the agent.
func (o *options) parseName(credentials *rpc.Credentials) (member.Pool, member.ID, error) {
	pool, id := o.pool, o.id
	if me := credentials.Identity(); credentials.TLS() {
		if me.Role != rpc.RoleAgent {
			return "", "", member.Invalid("tls-cert", "it is for %s, not for an agent", me)
		}
		if pool != "" && pool != string(me.Pool) || id != "" && id != me.Name {
			return "", "", member.Invalid("tls-cert", "it is for %s, which is not the server that --pool %q and --id %q say", me, pool, id)
		}
		pool, id = string(me.Pool), me.Name
	}
	if pool == "" {
		pool = string(member.DefaultPool)
	}
	if id == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", "", fmt.Errorf("find the host name (or give --id): %w", err)
		}
		id = strings.ToLower(host)
	}
	p, err := member.ParsePool("pool", pool)
	if err != nil {
		return "", "", err
	}
	i, err := member.ParseID("id", id)
	return p, i, err
}

// parseSpec checks everything that can be checked before the addresses are
// known. Whether a pool allows local addresses is for its coordinator to say.
func (o *options) parseSpec() (member.Spec, error) {
	spec := member.Spec{Zone: o.zone, Rack: o.rack, Weight: o.weight}
	for _, s := range o.probeAddresses {
		a, err := member.ParseProbeAddress("probe-address", s, true)
		if err != nil {
			return member.Spec{}, err
		}
		spec.ProbeAddresses = append(spec.ProbeAddresses, a)
	}
	var err error
	if spec.Probe, err = member.ParseProbe("probe", o.probe); err != nil {
		return member.Spec{}, err
	}
	for _, s := range o.endpoints {
		spec.Endpoints = append(spec.Endpoints, parseEndpoint(s))
	}
	if spec.Labels, err = parseLabels(o.labels); err != nil {
		return member.Spec{}, err
	}
	checked := spec.Clone()
	if len(checked.ProbeAddresses) == 0 {
		checked.ProbeAddresses = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})} // to be found later
	}
	return spec, asFlag(member.CheckSpec("spec", checked))
}

// parseEndpoint splits [NAME=][PROTOCOL://]HOST:PORT; its parts are checked with
// the spec.
func parseEndpoint(s string) member.Endpoint {
	var e member.Endpoint
	if name, rest, ok := strings.Cut(s, "="); ok {
		e.Name, s = name, rest
	}
	if protocol, rest, ok := strings.Cut(s, "://"); ok {
		e.Protocol, s = protocol, rest
	}
	e.Address = s
	return e
}

func parseChecks(list []string) ([]Check, error) {
	if len(list) > maxChecks {
		return nil, member.Invalid("check", "there are %d; at most %d are allowed", len(list), maxChecks)
	}
	var checks []Check
	for _, s := range list {
		c, err := checker.Parse("check", s)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(checks, func(o Check) bool { return o.String() == c.String() }) {
			return nil, member.Invalid("check", "%q is there twice", c)
		}
		checks = append(checks, c)
	}
	return checks, nil
}

func parseLabels(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	labels := make(map[string]string, len(list))
	for _, s := range list {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, member.Invalid("label", "%q is not KEY=VALUE", s)
		}
		if _, twice := labels[key]; twice {
			return nil, member.Invalid("label", "%q is there twice", key)
		}
		labels[key] = value
	}
	return labels, nil
}

// asFlag names the flag instead of the field of a spec.
func asFlag(err error) error {
	var field *member.FieldError
	if !errors.As(err, &field) {
		return err
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(field.Field, "spec."), ".")
	switch name {
	case "probe_addresses":
		name = "probe-address"
	case "endpoints":
		name = "endpoint"
	case "labels":
		name = "label"
	}
	return &member.FieldError{Field: name, Problem: field.Problem}
}

func defaultStateDir(getenv func(string) string, uid int) (string, error) {
	if dirs := filepath.SplitList(getenv("STATE_DIRECTORY")); len(dirs) > 0 {
		return dirs[0], nil
	}
	if uid == 0 {
		return systemStateDir, nil
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "buddyring", "agent"), nil
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "buddyring", "agent"), nil
	}
	return "", member.Invalid("state-dir", "must be given where $HOME is not set")
}
