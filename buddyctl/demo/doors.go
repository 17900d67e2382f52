package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// The ports that the doors have unless they are busy.
const (
	adminPort           = 7401
	coordinatorHTTPPort = 7402
	routerPort          = 7500
	routerHTTPPort      = 7502
	dnsPort             = 7553
)

// triedPorts is how many ports are tried for one door.
const triedPorts = 50

// doors are the listeners in the caller's own network, by which the demo is
// reached from another shell.
type doors struct {
	admin, coordinatorHTTP, router, routerHTTP *net.TCPListener
	// dns and dnsPackets are nil where the router answers no DNS.
	dns        *net.TCPListener
	dnsPackets *net.UDPConn
	// moved says which ports were busy, for people.
	moved []string
}

// openDoors opens the doors; where a port is busy, the next that is free. With the
// DNS door a removal is acknowledged a TTL later, so it is for those who look at it.
func openDoors(ctx context.Context, withDNS bool) (*doors, error) {
	d := &doors{}
	for _, door := range []struct {
		what string
		port int
		lis  **net.TCPListener
	}{
		{"admin", adminPort, &d.admin},
		{"coordinator's HTTP", coordinatorHTTPPort, &d.coordinatorHTTP},
		{"router", routerPort, &d.router},
		{"router's HTTP", routerHTTPPort, &d.routerHTTP},
	} {
		lis, err := openNext(ctx, door.port)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the %s port: %w", door.what, err), d.close())
		}
		*door.lis = lis
		if got := addrPort(lis).Port(); int(got) != door.port {
			d.moved = append(d.moved, fmt.Sprintf("Port %d is busy; the %s port is %d instead.", door.port, door.what, got))
		}
	}
	if withDNS {
		if err := d.openDNS(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("open the DNS port: %w", err), d.close())
		}
	}
	return d, nil
}

// openDNS opens a port for both transports.
func (d *doors) openDNS(ctx context.Context) error {
	var conn net.PacketConn
	var err error
	for p := dnsPort; p < dnsPort+triedPorts && conn == nil; p++ {
		if d.dns, err = openNext(ctx, p); err != nil {
			return err
		}
		p = int(addrPort(d.dns).Port())
		if conn, err = new(net.ListenConfig).ListenPacket(ctx, "udp", d.dns.Addr().String()); err != nil {
			err = errors.Join(err, d.dns.Close())
			d.dns = nil
		}
	}
	if conn == nil {
		return err
	}
	d.dnsPackets = conn.(*net.UDPConn) //nolint:forcetypeassert // what "udp" always is
	return nil
}

// openNext listens on a port of loopback, or on the next that is free.
func openNext(ctx context.Context, port int) (*net.TCPListener, error) {
	var err error
	for p := port; p < port+triedPorts; p++ {
		var lis net.Listener
		lis, err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err == nil {
			return lis.(*net.TCPListener), nil //nolint:forcetypeassert // what "tcp" always is
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("open a port from %d on: %w", port, err)
}

func (d *doors) close() error {
	var errs []error
	for _, lis := range []*net.TCPListener{d.admin, d.coordinatorHTTP, d.router, d.routerHTTP, d.dns} {
		if lis != nil {
			errs = append(errs, lis.Close())
		}
	}
	if d.dnsPackets != nil {
		errs = append(errs, d.dnsPackets.Close())
	}
	return errors.Join(errs...)
}

func (d *doors) facts() Listeners {
	l := Listeners{
		Admin: d.admin.Addr().String(), Router: d.router.Addr().String(),
		CoordinatorHTTP: d.coordinatorHTTP.Addr().String(), RouterHTTP: d.routerHTTP.Addr().String(),
	}
	if d.dns != nil {
		l.DNS = d.dns.Addr().String()
	}
	return l
}
