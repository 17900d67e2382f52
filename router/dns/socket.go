package dns

import (
	"errors"
	"fmt"
	"net"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// socket reads and writes packets. On a host with several addresses an answer
// comes from the one that was asked.
type socket struct {
	conn net.PacketConn
	// udp is nil where conn is no UDP socket.
	udp *net.UDPConn
}

// sender is where a packet came from.
type sender struct {
	addr net.Addr
	// session remembers the address that was asked; nil where there is no choice.
	session *dns.SessionUDP
}

func newSocket(conn net.PacketConn) (socket, error) {
	s := socket{conn: conn}
	s.udp, _ = conn.(*net.UDPConn)
	if s.udp == nil {
		return s, nil
	}
	// A socket is of one family or of both; only one of these need work.
	err6 := ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	err4 := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	if err4 != nil && err6 != nil {
		return s, fmt.Errorf("prepare dns socket: %w", errors.Join(err4, err6))
	}
	return s, nil
}

func (s socket) read(buf []byte) (n int, from sender, err error) {
	if s.udp == nil {
		n, from.addr, err = s.conn.ReadFrom(buf)
		return n, from, err
	}
	n, session, err := dns.ReadFromSessionUDP(s.udp, buf)
	if err != nil {
		return 0, sender{}, err
	}
	return n, sender{session.RemoteAddr(), session}, nil
}

func (s socket) write(packet []byte, to sender) error {
	var err error
	if to.session == nil {
		_, err = s.conn.WriteTo(packet, to.addr)
	} else {
		_, err = dns.WriteToSessionUDP(s.udp, packet, to.session)
	}
	return err
}
