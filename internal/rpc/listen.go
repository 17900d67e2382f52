package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/buddyring/buddyring/internal/member"
)

// Listen returns the listener of that name that was handed in by systemd's
// protocol for socket activation (LISTEN_FDS, LISTEN_FDNAMES; LISTEN_PID counts
// only when it is set), or else opens addr, a HOST:PORT. Without TLS it must
// be on loopback, unless plaintext beyond it is allowed. The caller closes it.
func (c *Credentials) Listen(ctx context.Context, name, addr string) (net.Listener, error) {
	lis, err := inherited(name)
	if err != nil {
		return nil, fmt.Errorf("take over listener %q: %w", name, err)
	}
	if lis == nil {
		if lis, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err != nil {
			return nil, fmt.Errorf("open listener %q: %w", name, err)
		}
	}
	if err := c.permit(ctx, name, lis.Addr()); err != nil {
		return nil, errors.Join(err, lis.Close())
	}
	return lis, nil
}

// ListenPacket is Listen for a UDP socket. Its names are not those of Listen.
func (c *Credentials) ListenPacket(ctx context.Context, name, addr string) (net.PacketConn, error) {
	conn, err := inheritedPacket(name)
	if err != nil {
		return nil, fmt.Errorf("take over socket %q: %w", name, err)
	}
	if conn == nil {
		if conn, err = new(net.ListenConfig).ListenPacket(ctx, "udp", addr); err != nil {
			return nil, fmt.Errorf("open socket %q: %w", name, err)
		}
	}
	if err := c.permit(ctx, name, conn.LocalAddr()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// permit refuses plaintext beyond loopback where nobody has allowed it.
func (c *Credentials) permit(ctx context.Context, name string, at net.Addr) error {
	if c.files != nil || !beyondLoopback(at) {
		return nil
	}
	if !c.insecure {
		return member.Invalid("insecure", "listener %q on %s is plaintext beyond loopback: "+plaintextRemedy, name, at)
	}
	c.log.WarnContext(ctx, "plaintext listener beyond loopback", "listener", name, "address", at.String())
	return nil
}

// CheckListen says what is wrong with the address of a listener before it is
// opened: that it is no HOST:PORT, or an IP address at which Listen refuses
// plaintext. flag is the one that gave the address.
func (c *Credentials) CheckListen(flag, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return member.Invalid(flag, "%q is not HOST:PORT", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return member.Invalid(flag, "%q: the port must be 0 to 65535", addr)
	}
	ip, notIP := netip.ParseAddr(host)
	beyond := host == "" || notIP == nil && !ip.IsLoopback()
	if beyond && c.files == nil && !c.insecure {
		return member.Invalid(flag, "%q is plaintext beyond loopback: "+plaintextRemedy, addr)
	}
	return nil
}

// plaintextRemedy is what to do about a listener that others could read along with.
const plaintextRemedy = "give --tls-cert, --tls-key and --tls-ca, or allow it with --insecure"

// DefaultAddress is where a listener is opened that nobody configured: the
// port on loopback, or with TLS on all addresses.
func (c *Credentials) DefaultAddress(port int) string {
	if c.files == nil {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	return ":" + strconv.Itoa(port)
}

// beyondLoopback reports whether others can reach the address. Addresses that
// are not IP addresses are local by nature.
func beyondLoopback(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return !a.IP.IsLoopback()
	case *net.UDPAddr:
		return !a.IP.IsLoopback()
	}
	return false
}

// firstInherited is the first file descriptor of socket activation.
const firstInherited = 3

// inherited returns the handed-in listener of that name, or nil. The
// descriptor itself stays open, as its giver keeps it open too.
func inherited(name string) (net.Listener, error) {
	f, err := inheritedFile(name)
	if f == nil || err != nil {
		return nil, err
	}
	lis, err := net.FileListener(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("descriptor of %q: %w", name, err), f.Close())
	}
	return lis, f.Close()
}

// inheritedPacket is inherited for a UDP socket.
func inheritedPacket(name string) (net.PacketConn, error) {
	f, err := inheritedFile(name)
	if f == nil || err != nil {
		return nil, err
	}
	conn, err := net.FilePacketConn(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("descriptor of %q: %w", name, err), f.Close())
	}
	return conn, f.Close()
}

// inheritedFile returns a copy of the handed-in descriptor of that name, or nil.
func inheritedFile(name string) (*os.File, error) {
	if pid := os.Getenv("LISTEN_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	count := os.Getenv("LISTEN_FDS")
	if count == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS is %q, not a number of descriptors", count)
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range min(n, len(names)) {
		if names[i] == name {
			return duplicate(firstInherited + i)
		}
	}
	return nil, nil
}

func duplicate(fd int) (*os.File, error) {
	syscall.CloseOnExec(fd)
	own, err := syscall.Dup(fd)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	syscall.CloseOnExec(own)
	return os.NewFile(uintptr(own), "listener"), nil
}
