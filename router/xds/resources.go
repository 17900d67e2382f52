package xds

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	managerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// httpOptions is the key under which Envoy looks for the HTTP version of a
// cluster's servers.
const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// nameOf is the name of all resources that stand for an endpoint of a pool's
// servers; "" is the first one of each.
func nameOf(pool member.Pool, endpoint string) string {
	if endpoint == "" {
		return string(pool)
	}
	return string(pool) + "/" + endpoint
}

// endpointNames are the names that any member has given an endpoint, whatever
// its phase, and "" for the first endpoint of each.
func endpointNames(v *view.View) []string {
	names := []string{""}
	for _, servers := range [][]*view.Server{v.Rows(), v.Held()} {
		for _, s := range servers {
			for _, e := range s.Endpoints {
				names = append(names, e.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// resourcesOf returns, by type, what is to be published of a pool under a name
// that has been published as n says; what is not in it stays as it is. While the
// pool has members and none of them can be offered, the last assignment stays.
func resourcesOf(p Pool, name string, n *named) map[string]proto.Message {
	out := map[string]proto.Message{}
	hosts := hostsOf(p, n.endpoint)
	offered := offersWork(hosts)
	if offered || len(p.View.Rows())+len(p.View.Held()) == 0 {
		out[resource.EndpointType] = newAssignment(name, hosts)
	}
	if offered || n.encoded[resource.ClusterType] == nil {
		out[resource.ClusterType] = newCluster(name, len(hosts) > 0 && allHTTP2(hosts))
	}
	out[resource.RouteType] = newRoute(name)
	out[resource.ListenerType] = newListener(name)
	return out
}

// newListener is what a proxyless client asks for first. It leads to the route of
// the same name.
func newListener(name string) *listenerv3.Listener {
	manager := &managerv3.HttpConnectionManager{
		RouteSpecifier: &managerv3.HttpConnectionManager_Rds{
			Rds: &managerv3.Rds{ConfigSource: aggregated(), RouteConfigName: name},
		},
		HttpFilters: []*managerv3.HttpFilter{{
			Name: "router", ConfigType: &managerv3.HttpFilter_TypedConfig{TypedConfig: wrap(&routerv3.Router{})},
		}},
	}
	return &listenerv3.Listener{Name: name, ApiListener: &listenerv3.ApiListener{ApiListener: wrap(manager)}}
}

// newRoute sends everything to the cluster of the same name.
func newRoute(name string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
		Name: name, Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: name},
			}},
		}},
	}}}
}

// newCluster says how a client chooses among the servers of an assignment: in
// turn, by the weights of the localities, and without those that answer badly.
// Envoy is told besides that a server which is gone is gone, whatever its own
// health checks say, and that bad health is no reason to send work to everybody.
func newCluster(name string, http2 bool) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: aggregated()},
		LbPolicy:             clusterv3.Cluster_ROUND_ROBIN,
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			HealthyPanicThreshold: &typev3.Percent{Value: 0},
			LocalityConfigSpecifier: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
				LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
			},
		},
		IgnoreHealthOnHostRemoval: true,
		OutlierDetection: &clusterv3.OutlierDetection{
			Interval:           durationpb.New(10 * time.Second),
			BaseEjectionTime:   durationpb.New(30 * time.Second),
			MaxEjectionPercent: wrapperspb.UInt32(10),
		},
	}
	if !http2 {
		return c
	}
	options := &upstreamv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
				},
			},
		},
	}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: wrap(options)}
	return c
}

// wrap encodes a message of this file, all of which can be.
func wrap(m proto.Message) *anypb.Any {
	value, err := encode(m)
	if err != nil {
		return &anypb.Any{}
	}
	return &anypb.Any{TypeUrl: resource.APITypePrefix + string(proto.MessageName(m)), Value: value}
}

// aggregated says that a resource comes over the same stream.
func aggregated() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// host is one server's endpoint and where it stands in an assignment.
type host struct {
	address  netip.AddrPort
	priority uint32
	zone     string
	// weight is 0 for a host that gets no new work.
	weight uint32
	http2  bool
}

// hostsOf returns the hosts that have the endpoint, those that get work first, in
// order of preference. Each address is there once, for clients refuse an
// assignment that has it twice; and only IP addresses without a scope are, for
// clients refuse others as well.
func hostsOf(p Pool, endpoint string) []host {
	var hosts []host
	seen := map[netip.AddrPort]bool{}
	add := func(s *view.Server, priority, weight uint32) {
		h, ok := hostOf(s, endpoint)
		if !ok || seen[h.address] {
			return
		}
		seen[h.address] = true
		h.priority, h.weight = priority, weight
		hosts = append(hosts, h)
	}
	// Priorities must have no gap.
	next, state := uint32(0), view.StateActive
	for _, e := range p.Table.Entries() {
		if e.State != state && len(hosts) > 0 {
			next = hosts[len(hosts)-1].priority + 1
		}
		state = e.State
		add(e.Server, next, e.Server.Weight)
	}
	// Where nobody else is left, those that drain are better than nobody.
	last := len(hosts) == 0
	for _, s := range p.View.Rows() {
		if s.Phase == member.PhaseDraining {
			add(s, 0, drainingWeight(s, last))
		}
	}
	return hosts
}

func drainingWeight(s *view.Server, last bool) uint32 {
	if last {
		return s.Weight
	}
	return 0
}

// hostOf returns the endpoint of a name, or the first if the name is empty.
func hostOf(s *view.Server, endpoint string) (host, bool) {
	i := slices.IndexFunc(s.Endpoints, func(e member.Endpoint) bool { return endpoint == "" || e.Name == endpoint })
	if i < 0 {
		return host{}, false
	}
	address, err := netip.ParseAddrPort(s.Endpoints[i].Address)
	if err != nil || address.Addr().Zone() != "" {
		return host{}, false
	}
	return host{address: address, zone: s.Zone, http2: isHTTP2(s.Endpoints[i].Protocol)}, true
}

func isHTTP2(protocol string) bool {
	return slices.Contains([]string{"grpc", "h2", "h2c", "http2"}, strings.ToLower(protocol))
}

// offersWork reports whether any host gets new work.
func offersWork(hosts []host) bool {
	return slices.ContainsFunc(hosts, func(h host) bool { return h.weight > 0 })
}

// allHTTP2 reports whether all hosts say that they speak HTTP/2.
func allHTTP2(hosts []host) bool {
	return !slices.ContainsFunc(hosts, func(h host) bool { return !h.http2 })
}

// newAssignment places the hosts. Clients ignore the weights of single hosts, so
// that hosts with equal weights form a locality, whose weight is theirs together.
// A locality without weight gets no work; there are those that drain.
func newAssignment(name string, hosts []host) *endpointv3.ClusterLoadAssignment {
	sorted := slices.Clone(hosts)
	slices.SortStableFunc(sorted, func(a, b host) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.zone, b.zone), cmp.Compare(b.weight, a.weight))
	})
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for len(sorted) > 0 {
		first := sorted[0]
		n := slices.IndexFunc(sorted, func(h host) bool {
			return h.priority != first.priority || h.zone != first.zone || h.weight != first.weight
		})
		if n < 0 {
			n = len(sorted)
		}
		out.Endpoints = append(out.Endpoints, newLocality(sorted[:n]))
		sorted = sorted[n:]
	}
	return out
}

// newLocality takes hosts of one priority, zone and weight.
func newLocality(hosts []host) *endpointv3.LocalityLbEndpoints {
	first := hosts[0]
	out := &endpointv3.LocalityLbEndpoints{
		Locality: &corev3.Locality{Zone: first.zone, SubZone: "draining"},
		Priority: first.priority,
	}
	health := corev3.HealthStatus_DRAINING
	if first.weight > 0 {
		health = corev3.HealthStatus_HEALTHY
		out.Locality.SubZone = fmt.Sprintf("weight-%d", first.weight)
		out.LoadBalancingWeight = wrapperspb.UInt32(first.weight * uint32(len(hosts)))
	}
	for _, h := range hosts {
		out.LbEndpoints = append(out.LbEndpoints, &endpointv3.LbEndpoint{
			HealthStatus: health,
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address:       h.address.Addr().String(),
					PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(h.address.Port())},
				}}},
			}},
		})
	}
	return out
}

// encode is the same for equal messages of one build.
func encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}
