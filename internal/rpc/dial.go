package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"

	"github.com/buddyring/buddyring/internal/connect"
	"github.com/buddyring/buddyring/internal/member"
)

// How clients connect.
const (
	reconnectFirst = 200 * time.Millisecond
	reconnectMax   = 3 * time.Second
	connectTimeout = 5 * time.Second

	clientPingAfter   = 30 * time.Second
	clientPingTimeout = 10 * time.Second

	maxClientRecvBytes = 64 << 20
)

// DialConfig configures a client's connection.
type DialConfig struct {
	// Addresses are HOST:PORT, tried in order. HOST may be a name, which is
	// resolved at each attempt.
	Addresses   []string
	Credentials *Credentials
	// ServerRole is the role that the server's certificate must have.
	ServerRole Role
	Logger     *slog.Logger
	// FixedWindows keeps the windows of flow control as they are at first, 64 KiB,
	// for a server that says little at a time. Otherwise gRPC sends a ping with what
	// it receives, to learn how large they should be, which more than doubles the
	// packets of such a connection.
	FixedWindows bool
	// Dialer opens a transport connection; nil for connect.First.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
}

// Dial returns a connection that connects when it is first used and again
// whenever it is lost, after 200 ms to 3 s. A call while the servers cannot be
// reached fails at once with ErrUnavailable. Errors of calls are those of the
// vocabulary. Plaintext beyond loopback is refused as in Listen.
func Dial(cfg DialConfig) (*grpc.ClientConn, error) {
	if len(cfg.Addresses) == 0 {
		return nil, member.Invalid("address", "at least one is needed")
	}
	for _, a := range cfg.Addresses {
		if err := cfg.checkAddress(a); err != nil {
			return nil, err
		}
	}
	transport := insecure.NewCredentials()
	if cfg.Credentials.TLS() {
		transport = &clientTransport{files: cfg.Credentials.files, role: cfg.ServerRole}
	}
	options := []grpc.DialOption{
		grpc.WithResolvers(addressList(cfg.Addresses)),
		grpc.WithContextDialer(cfg.dialer()),
		grpc.WithTransportCredentials(transport),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: reconnectFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax,
			},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: clientPingAfter, Timeout: clientPingTimeout, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxClientRecvBytes)),
		grpc.WithDisableServiceConfig(),
		grpc.WithChainUnaryInterceptor(clientUnary),
		grpc.WithChainStreamInterceptor(clientStream),
	}
	if cfg.FixedWindows {
		options = append(options, grpc.WithStaticStreamWindowSize(windowBytes), grpc.WithStaticConnWindowSize(windowBytes))
	}
	conn, err := grpc.NewClient(scheme+":///"+cfg.Addresses[0], options...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", cfg.Addresses[0], err)
	}
	return conn, nil
}

// checkAddress refuses at once what could never be dialled. Where a name leads
// is only known when it is resolved.
func (cfg DialConfig) checkAddress(address string) error {
	if err := member.CheckHostPort("address", address); err != nil || cfg.Dialer != nil {
		return err
	}
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return cfg.Credentials.mayDial(net.TCPAddrFromAddrPort(ap))
	}
	return nil
}

func (cfg DialConfig) dialer() func(context.Context, string) (net.Conn, error) {
	open := cfg.Dialer
	if open == nil {
		open = connect.First
	}
	var warn sync.Once
	return func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := open(ctx, address)
		if err != nil {
			return nil, err
		}
		if err := cfg.Credentials.mayDial(conn.RemoteAddr()); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		if !cfg.Credentials.TLS() && beyondLoopback(conn.RemoteAddr()) {
			warn.Do(func() {
				cfg.Logger.WarnContext(ctx, "plaintext connection beyond loopback", "address", address)
			})
		}
		return conn, nil
	}
}

func (c *Credentials) mayDial(to net.Addr) error {
	if c.files != nil || c.insecure || !beyondLoopback(to) {
		return nil
	}
	return member.Invalid("insecure", "%s is beyond loopback and the connection would be plaintext: "+
		"give --tls-cert, --tls-key and --tls-ca, or allow it with --insecure", to)
}

// addressList is a resolver that gives the addresses as they are: the dialer
// resolves names at each attempt.
type addressList []string

const scheme = "buddyring-addresses"

func (l addressList) Scheme() string { return scheme }

func (l addressList) Build(
	_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions,
) (resolver.Resolver, error) {
	var state resolver.State
	for _, a := range l {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	if err := cc.UpdateState(state); err != nil {
		return nil, fmt.Errorf("set addresses: %w", err)
	}
	return l, nil
}

func (l addressList) ResolveNow(resolver.ResolveNowOptions) {}

func (l addressList) Close() {}
