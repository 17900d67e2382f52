package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Encoded is a message in its wire format, in parts that follow one another. A
// handler may return or send it in place of the message. Nobody may change the
// parts any more: they go out as they are, without a copy, and one part may be
// on its way to any number of clients.
type Encoded struct {
	parts mem.BufferSlice
}

// NewEncoded returns the message that the parts make up.
func NewEncoded(parts ...[]byte) *Encoded {
	e := &Encoded{parts: make(mem.BufferSlice, len(parts))}
	for i, p := range parts {
		e.parts[i] = mem.SliceBuffer(p)
	}
	return e
}

// Raw is a message in its wire format. A handler may receive into it in place of
// the message, to decode it itself, and frees it before it receives the next one.
type Raw struct {
	buffer mem.Buffer
}

// NewRaw returns a message that came another way, such as in a test.
func NewRaw(b []byte) Raw { return Raw{mem.SliceBuffer(b)} }

// Bytes is the message until it is freed.
func (r *Raw) Bytes() []byte { return r.buffer.ReadOnlyData() }

// Free gives the buffer back.
func (r *Raw) Free() {
	r.buffer.Free()
	r.buffer = nil
}

// codec is gRPC's for protobuf, which also takes what is encoded already, and
// gives what is to be decoded elsewhere.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*Encoded); ok {
		return e.parts, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*Raw); ok {
		r.buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
