package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// frameSize is what a frame takes at most, which may be several segments of TCP in one,
// with what the kernel says about it.
const frameSize = 1 << 17

// Detour is a host that others send to each other through, and that passes on late what
// they do: a slow link. It keeps the order.
type Detour struct {
	host   *Host
	socket *os.File
	mac    net.HardwareAddr
	going  sync.WaitGroup

	mu   sync.Mutex
	ways map[way]*lane
}

// way is that from one address to another.
type way struct{ from, to netip.Addr }

// lane is what is under way.
type lane struct {
	to     net.HardwareAddr
	delay  time.Duration
	frames chan late
}

// late is a frame that goes on at a time.
type late struct {
	at    time.Time
	frame []byte
}

// waiting is how many frames a way holds; more are lost.
const waiting = 4096

// Detour makes a detour of a host that nothing else runs on, until Close.
func (h *Host) Detour() (*Detour, error) {
	d := &Detour{host: h, ways: map[way]*lane{}}
	link, err := h.inner.LinkByName(device)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", device, err)
	}
	d.mac = link.Attrs().HardwareAddr
	if err := h.Do(func() error { return d.open(link.Attrs().Index) }); err != nil {
		return nil, fmt.Errorf("make detour of %s: %w", h.name, err)
	}
	d.going.Go(d.receive)
	return d, nil
}

// open opens the socket. The kernel says with each frame what it has left undone, sums
// and segments, and does it when the frame goes on.
func (d *Detour) open(index int) error {
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index}),
	)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	d.socket = os.NewFile(uintptr(fd), "detour")
	return nil
}

// Where things are in what is read: the kernel's header, that of Ethernet, that of IPv4.
const (
	kernelHeader   = 10
	etherTo        = kernelHeader
	etherFrom      = etherTo + 6
	ipFrom         = kernelHeader + 14 + 12
	ipTo           = ipFrom + 4
	leastFrameSize = ipTo + 4
)

func (d *Detour) receive() {
	buffer := make([]byte, frameSize)
	for {
		n, err := d.socket.Read(buffer)
		if err != nil {
			return
		}
		if n < leastFrameSize {
			continue
		}
		frame := append([]byte(nil), buffer[:n]...)
		w := way{netip.AddrFrom4([4]byte(frame[ipFrom:])), netip.AddrFrom4([4]byte(frame[ipTo:]))}
		d.mu.Lock()
		if l := d.ways[w]; l != nil {
			copy(frame[etherTo:], l.to)
			copy(frame[etherFrom:], d.mac)
			select {
			case l.frames <- late{time.Now().Add(l.delay), frame}:
			default:
			}
		}
		d.mu.Unlock()
	}
}

// pass passes on what comes on a way.
func (d *Detour) pass(frames <-chan late) {
	for f := range frames {
		time.Sleep(time.Until(f.at))
		_, _ = d.socket.Write(f.frame) // as a network, which does not promise
	}
}

// Between delays all that two hosts send to each other from now on, each way; again,
// with another delay.
func (d *Detour) Between(a, b *Host, delay time.Duration) error {
	for _, w := range [][2]*Host{{a, b}, {b, a}} {
		from, to := w[0], w[1]
		link, err := to.inner.LinkByName(device)
		if err != nil {
			return fmt.Errorf("find %s: %w", device, err)
		}
		l := &lane{to: link.Attrs().HardwareAddr, delay: delay, frames: make(chan late, waiting)}
		d.mu.Lock()
		if before := d.ways[way{from.addr, to.addr}]; before != nil {
			close(before.frames)
		}
		d.ways[way{from.addr, to.addr}] = l
		d.mu.Unlock()
		d.going.Go(func() { d.pass(l.frames) })
		if err := from.send(to.addr, d.mac); err != nil {
			return err
		}
	}
	return nil
}

// Close loses what is under way, and lets hosts send to each other as before.
func (d *Detour) Close() error {
	errs := []error{d.socket.Close()}
	d.mu.Lock()
	for w, l := range d.ways {
		close(l.frames)
		for _, h := range d.host.lab.hosts {
			if h.addr == w.from {
				errs = append(errs, h.Mend(w.to))
			}
		}
	}
	d.ways = nil
	d.mu.Unlock()
	d.going.Wait()
	return errors.Join(errs...)
}
