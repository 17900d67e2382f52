package prober

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Mode is how ICMP echo requests are sent.
type Mode uint8

// The modes.
const (
	// ModeNone: not at all.
	ModeNone Mode = iota
	// ModeRaw: through raw sockets, which need CAP_NET_RAW.
	ModeRaw
	// ModeDatagram: through unprivileged ping sockets, which the sysctl
	// net.ipv4.ping_group_range must allow. Linux does not tell them what a
	// firewall of this host drops of IPv6: such a probe is Lost.
	ModeDatagram
)

// String returns how a person would call it.
func (m Mode) String() string {
	switch m {
	case ModeRaw:
		return "raw socket"
	case ModeDatagram:
		return "unprivileged ping socket"
	case ModeNone:
	}
	return "none"
}

// ErrNoPermission says that this process may not send ICMP, and what helps.
var ErrNoPermission = errors.New("this process may send ICMP neither through a raw socket nor through an unprivileged " +
	"ping socket; give it CAP_NET_RAW (setcap cap_net_raw+ep on the program, or AmbientCapabilities=CAP_NET_RAW in its unit), " +
	"or allow its group (sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"), or have the pool probed by TCP (--probe tcp://:PORT)")

// selfTestTimeout is how long a healthy host may take to answer itself, on a
// busy machine.
const selfTestTimeout = time.Second

// Health is what SelfTest has found.
type Health struct {
	// Mode is how to send ICMP. When it is ModeNone, Err wraps ErrNoPermission.
	Mode Mode
	Err  error
	// Loopback is a probe of this host that was answered, for later checks of
	// its health. It is a TCP connect where the host does not answer ICMP.
	Loopback Target
	// Warnings are plain sentences for the log.
	Warnings []string
}

// SelfTest finds out how this process can send ICMP by pinging 127.0.0.1 and,
// where the host has IPv6, ::1, which will do on a host without IPv4.
func SelfTest(ctx context.Context, log *slog.Logger) Health {
	four, six := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	// Nobody listens on the discard port; the refusal is the reply.
	h := Health{Loopback: Target{Addresses: []netip.Addr{four}, Probe: member.Probe{Method: member.ProbeTCP, Port: 9}}}
	withoutFour := checkRoute(ctx, four) != nil
	var refusals []string
	for _, mode := range []Mode{ModeRaw, ModeDatagram} {
		r := pingOnce(ctx, log, mode, four)
		if errors.Is(r.Err, fs.ErrPermission) {
			refusals = append(refusals, fmt.Sprintf("%v: %v", mode, r.Err))
			continue
		}
		h.Mode = mode
		if r.Outcome == Replied {
			h.Loopback.Probe = member.Probe{}
		} else {
			h.Warnings = append(h.Warnings, explain("127.0.0.1 does not answer ICMP, so other hosts will hardly get an answer "+
				"either: is the loopback interface up, is net.ipv4.icmp_echo_ignore_all 0? Otherwise use --probe tcp://:PORT", r.Err))
		}
		break
	}
	if h.Mode == ModeNone {
		h.Err = fmt.Errorf("%w (%s)", ErrNoPermission, strings.Join(refusals, "; "))
		return h
	}
	if checkRoute(ctx, six) == nil {
		r := pingOnce(ctx, log, h.Mode, six)
		if r.Outcome != Replied {
			h.Warnings = append(h.Warnings, explain("::1 does not answer ICMP: IPv6 probes from and to this host may fail", r.Err))
		} else if withoutFour {
			h.Loopback, h.Warnings = Target{Addresses: []netip.Addr{six}}, nil
		}
	}
	return h
}

func explain(text string, err error) string {
	if err != nil {
		text += " (" + err.Error() + ")"
	}
	return text
}

func pingOnce(ctx context.Context, log *slog.Logger, mode Mode, a netip.Addr) Result {
	p := New(Config{Mode: mode, Logger: log})
	defer p.Wait()
	return p.ping(ctx, a, selfTestTimeout)
}
