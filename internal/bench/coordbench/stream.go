package coordbench

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

const (
	// connectTime bounds a TCP connect, as that of real agents is.
	connectTime = 5 * time.Second
	// clientWindow is so large that it need not be looked after.
	clientWindow = 1 << 30
	frameHeader  = 9
	prefix       = 5
	streamID     = 1
	readBuffer   = 512
	maxFrame     = 16 << 10
	headerTable  = 4 << 10
)

// stream is one gRPC call on a connection of its own, spoken without a gRPC
// client: that would cost four goroutines and 30 KiB for each of thousands. Its
// user receives on one goroutine, and may send on any.
type stream struct {
	conn    net.Conn
	frames  *http2.Framer
	headers *hpack.Decoder
	// keep is how many bytes of a message are kept; more are only counted.
	keep int
	// data is what is left of the newest frame; the message that it goes on with has
	// head as its prefix, of which headSize bytes are there, and lacks missing bytes.
	data     []byte
	head     [prefix]byte
	headSize int
	missing  int
	body     []byte

	mu  sync.Mutex
	out []byte
}

// connect opens a connection from a source address, and makes HTTP/2 of it. Of
// each message up to keep bytes will be kept.
func connect(ctx context.Context, source net.IP, address string, keep int) (*stream, error) {
	dialer := net.Dialer{Timeout: connectTime, LocalAddr: &net.TCPAddr{IP: source}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", member.ErrUnavailable, err)
	}
	s := &stream{
		conn: conn, frames: http2.NewFramer(conn, bufio.NewReaderSize(conn, readBuffer)), headers: hpack.NewDecoder(headerTable, nil), keep: keep,
	}
	s.frames.SetReuseFrames()
	hello := []byte(http2.ClientPreface)
	hello = appendFrame(hello, http2.FrameSettings, 0, setting(http2.SettingInitialWindowSize, clientWindow))
	hello = append(hello, 0, 0, 4, byte(http2.FrameWindowUpdate), 0, 0, 0, 0, 0)
	hello = binary.BigEndian.AppendUint32(hello, clientWindow)
	if err := s.write(hello); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

// appendFrame appends a frame of the connection.
func appendFrame(b []byte, kind http2.FrameType, flags http2.Flags, payload []byte) []byte {
	b = append(b, 0, 0, byte(len(payload)), byte(kind), byte(flags), 0, 0, 0, 0)
	return append(b, payload...)
}

func setting(id http2.SettingID, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, uint16(id)), value)
}

// call opens the stream with its first message.
func (s *stream) call(method string, m proto.Message) error {
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	// A real agent has heard by now that the coordinator remembers no headers.
	encoder.SetMaxDynamicTableSizeLimit(0)
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", method},
		{":authority", "coordinator"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return fmt.Errorf("encode headers: %w", err)
		}
	}
	b := append(make([]byte, 0, 512), 0, 0, byte(block.Len()), byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders), 0, 0, 0, streamID)
	b, err := appendMessage(append(b, block.String()...), m)
	if err != nil {
		return err
	}
	return s.write(b)
}

// send sends messages, in one write.
func (s *stream) send(messages ...proto.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = s.out[:0]
	for _, m := range messages {
		var err error
		if s.out, err = appendMessage(s.out, m); err != nil {
			return err
		}
	}
	_, err := s.conn.Write(s.out)
	if cap(s.out) > 4*readBuffer {
		s.out = nil
	}
	return err
}

func (s *stream) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.conn.Write(b)
	return err
}

// appendMessage appends a message as one frame of data.
func appendMessage(b []byte, m proto.Message) ([]byte, error) {
	start := len(b)
	b = append(b, make([]byte, frameHeader+prefix)...)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	size := len(b) - start - frameHeader
	if size > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes does not fit into a frame", size)
	}
	h := b[start:]
	h[0], h[1], h[2], h[3], h[8] = byte(size>>16), byte(size>>8), byte(size), byte(http2.FrameData), streamID
	binary.BigEndian.PutUint32(h[frameHeader+1:], uint32(size-prefix))
	return b, nil
}

// receive returns the next message, of a long one the beginning, and how long it
// is. It is valid until the next call. At the end of the stream it returns how
// that ended, in the vocabulary, never nil.
func (s *stream) receive() (message []byte, size int, err error) {
	for {
		if s.assemble() {
			return s.body, int(binary.BigEndian.Uint32(s.head[1:])), nil
		}
		frame, err := s.frames.ReadFrame()
		if err != nil {
			return nil, 0, fmt.Errorf("%w: %w", member.ErrUnavailable, err)
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			s.data = f.Data()
		case *http2.HeadersFrame:
			err = s.takeHeaders(f)
		default:
			err = s.takeControl(frame)
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

// assemble goes on with the present message and reports whether that is whole.
func (s *stream) assemble() bool {
	if s.headSize < prefix {
		n := copy(s.head[s.headSize:], s.data)
		s.data = s.data[n:]
		if s.headSize += n; s.headSize < prefix {
			return false
		}
		s.missing, s.body = int(binary.BigEndian.Uint32(s.head[1:])), s.body[:0]
	}
	part := s.data[:min(s.missing, len(s.data))]
	s.body = append(s.body, part[:min(len(part), s.keep-len(s.body))]...)
	s.missing -= len(part)
	s.data = s.data[len(part):]
	if s.missing > 0 {
		return false
	}
	s.headSize = 0
	return true
}

// takeControl answers what HTTP/2 wants an answer to.
func (s *stream) takeControl(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return s.write(appendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, nil))
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return s.write(appendFrame(nil, http2.FramePing, http2.FlagPingAck, f.Data[:]))
		}
	case *http2.GoAwayFrame:
		if f.LastStreamID < streamID {
			return fmt.Errorf("%w: the server is going away", member.ErrUnavailable)
		}
	case *http2.RSTStreamFrame:
		return fmt.Errorf("%w: the server has reset the stream: %v", member.ErrUnavailable, f.ErrCode)
	}
	return nil
}

// takeHeaders reads the headers of the answer, or the trailers, which end the
// stream with an error.
func (s *stream) takeHeaders(f *http2.HeadersFrame) error {
	fields, err := s.headers.DecodeFull(f.HeaderBlockFragment())
	if err != nil {
		return fmt.Errorf("decode headers: %w", err)
	}
	if !f.StreamEnded() {
		return nil
	}
	values := map[string]string{}
	for _, h := range fields {
		values[h.Name] = h.Value
	}
	code, err := strconv.ParseUint(values["grpc-status"], 10, 32)
	if err != nil {
		return fmt.Errorf("decode status %q: %w", values["grpc-status"], err)
	}
	if code == uint64(codes.OK) {
		return io.EOF
	}
	return rpc.FromStatus(trailed(codes.Code(code), values).Err())
}

// trailed is the status of trailers, with its details if they have any.
func trailed(code codes.Code, values map[string]string) *status.Status {
	var p spb.Status
	details, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(values["grpc-status-details-bin"], "="))
	if err == nil && len(details) > 0 && proto.Unmarshal(details, &p) == nil {
		return status.FromProto(&p)
	}
	text, err := url.PathUnescape(values["grpc-message"])
	if err != nil {
		text = values["grpc-message"]
	}
	return status.New(code, text)
}

// unread reports whether something has come that nobody has received yet.
func (s *stream) unread() bool {
	tcp, ok := s.conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT) })
	return err == nil && n > 0
}

func (s *stream) close() { _ = s.conn.Close() }
