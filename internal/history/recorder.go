package history

import (
	"slices"
	"sync"
	"time"
)

// Recorder writes a history down. It is safe for concurrent use.
type Recorder struct {
	begin time.Time

	mu      sync.Mutex
	calls   []*Call
	streams []*Feed
}

// NewRecorder returns an empty history that begins at a time.
func NewRecorder(begin time.Time) *Recorder { return &Recorder{begin: begin} }

// Call is an operation that has been asked for. Until it returns, its outcome is
// unknown.
type Call struct {
	recorder *Recorder
	op       Operation
	void     bool
}

// Call writes down that o is asked for now.
func (r *Recorder) Call(o Operation, now time.Time) *Call {
	c := &Call{recorder: r, op: o}
	c.op.Call = now.Sub(r.begin)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	return c
}

// Return writes down the answer.
func (c *Call) Return(result Result, now time.Time) {
	c.recorder.mu.Lock()
	defer c.recorder.mu.Unlock()
	c.op.Known, c.op.Result, c.op.Return = true, result, now.Sub(c.recorder.begin)
}

// Retry writes down that it is asked for again.
func (c *Call) Retry() {
	c.recorder.mu.Lock()
	defer c.recorder.mu.Unlock()
	c.op.Retried = true
}

// Void strikes out an operation that has certainly had no effect, and has
// returned nothing.
func (c *Call) Void() {
	c.recorder.mu.Lock()
	defer c.recorder.mu.Unlock()
	c.void = true
}

// Feed is a stream that is being received.
type Feed struct {
	recorder *Recorder
	stream   Stream
}

// Open writes down that a stream is asked for now.
func (r *Recorder) Open(s Stream, now time.Time) *Feed {
	f := &Feed{recorder: r, stream: s}
	f.stream.Opened = now.Sub(r.begin)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams = append(r.streams, f)
	return f
}

// Receive writes down a message.
func (f *Feed) Receive(m Message, now time.Time) {
	m.At = now.Sub(f.recorder.begin)
	f.recorder.mu.Lock()
	defer f.recorder.mu.Unlock()
	f.stream.Messages = append(f.stream.Messages, m)
}

// History returns what has been written down, in order.
func (r *Recorder) History() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	var h History
	for _, c := range r.calls {
		if !c.void {
			h.Operations = append(h.Operations, c.op)
		}
	}
	for _, f := range r.streams {
		s := f.stream
		s.Messages = slices.Clone(s.Messages)
		h.Streams = append(h.Streams, s)
	}
	return h
}
