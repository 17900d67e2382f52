// Package gone is for tests: a name of which most hosts are gone.
package gone

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Name returns HOST:PORT of the listener's port, which is of 127.0.0.1. HOST leads to
// two addresses that answer no SYN, and last to that of the listener. Until the test
// ends the process resolves no other name, so the test must not be a parallel one.
func Name(t *testing.T, lis net.Listener) string {
	t.Helper()
	const name = "hosts.gone.test"
	port := netip.MustParseAddrPort(lis.Addr().String()).Port()
	answer := []string{"127.0.0.2", "127.0.0.3", "127.0.0.1"}
	for _, a := range answer[:2] {
		hush(t, netip.AddrPortFrom(netip.MustParseAddr(a), port))
	}
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: resolver(t, name, answer)}
	t.Cleanup(func() { net.DefaultResolver = before })
	_, text, _ := net.SplitHostPort(lis.Addr().String())
	return net.JoinHostPort(name, text)
}

// resolver returns a net.Resolver.Dial: a DNS server that knows one name.
func resolver(t *testing.T, name string, addresses []string) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(
		func(w dns.ResponseWriter, question *dns.Msg) {
			reply := new(dns.Msg).SetReply(question)
			for _, a := range addresses {
				if q := question.Question[0]; q.Qtype == dns.TypeA && q.Name == dns.Fqdn(name) {
					header := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}
					reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: net.ParseIP(a)})
				}
			}
			_ = w.WriteMsg(reply) // who asked may have gone
		})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.ActivateAndServe() // Shutdown ends it
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-ended
	})
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}
}

// hush makes an address drop SYNs: its queue of connections is full.
func hush(t *testing.T, at netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
}
