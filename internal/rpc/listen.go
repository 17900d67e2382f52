package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	if c.files != nil || !beyondLoopback(lis.Addr()) {
		return lis, nil
	}
	if !c.insecure {
		err := member.Invalid("insecure", "listener %q on %s is plaintext beyond loopback: "+
			"give --tls-cert, --tls-key and --tls-ca, or allow it with --insecure", name, lis.Addr())
		return nil, errors.Join(err, lis.Close())
	}
	c.log.WarnContext(ctx, "plaintext listener beyond loopback", "listener", name, "address", lis.Addr().String())
	return lis, nil
}

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
	tcp, ok := a.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

// firstInherited is the first file descriptor of socket activation.
const firstInherited = 3

// inherited returns the handed-in listener of that name, or nil. The
// descriptor itself stays open, as its giver keeps it open too.
func inherited(name string) (net.Listener, error) {
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
			return listenerOf(firstInherited + i)
		}
	}
	return nil, nil
}

func listenerOf(fd int) (net.Listener, error) {
	syscall.CloseOnExec(fd)
	own, err := syscall.Dup(fd)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	syscall.CloseOnExec(own)
	f := os.NewFile(uintptr(own), "listener")
	lis, err := net.FileListener(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("descriptor %d: %w", fd, err), f.Close())
	}
	return lis, f.Close()
}
