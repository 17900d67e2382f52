package observe

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// limitEvery is how often a line with the same key may appear.
	limitEvery = time.Second
	// limitKeys bounds the memory: with more different lines than this within a
	// second, all further ones share one key.
	limitKeys = 4096
)

// isSubject reports whether an attribute says what a line is about: two lines
// with the same message and different subjects are different lines.
func isSubject(key string) bool {
	switch key {
	case "pool", "server_id", "router_id", "coordinator_id", "alarm", "subject",
		"method", "peer", "address", "listener", "file":
		return true
	default:
		return false
	}
}

// Limited returns a handler that passes at most one line per second of those
// with the same level, message, and values of the attributes that say what the
// line is about (pool, server_id, router_id, alarm, method, peer and their
// like). Lines below WARN pass without limit. The next line that passes says in
// the attribute "suppressed" how many did not.
func Limited(next slog.Handler) slog.Handler {
	return &limited{next: next, seen: &seen{lines: map[string]*line{}}}
}

type limited struct {
	next slog.Handler
	// about are the key attributes given by WithAttrs.
	about string
	seen  *seen
}

// seen is shared by all handlers that come from one Limited.
type seen struct {
	mu    sync.Mutex
	lines map[string]*line
	// swept is when lines that would pass anyway were last dropped.
	swept time.Time
}

type line struct {
	last       time.Time
	suppressed int
}

func (h *limited) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *limited) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.next.Handle(ctx, r)
	}
	var key strings.Builder
	key.WriteString(r.Level.String() + "\x00" + r.Message + h.about)
	r.Attrs(func(a slog.Attr) bool {
		writeKey(&key, a)
		return true
	})
	suppressed, pass := h.seen.pass(key.String(), r.Time)
	if !pass {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return h.next.Handle(ctx, r)
}

func (h *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	var key strings.Builder
	key.WriteString(h.about)
	for _, a := range attrs {
		writeKey(&key, a)
	}
	return &limited{next: h.next.WithAttrs(attrs), about: key.String(), seen: h.seen}
}

func (h *limited) WithGroup(name string) slog.Handler {
	return &limited{next: h.next.WithGroup(name), about: h.about, seen: h.seen}
}

func writeKey(key *strings.Builder, a slog.Attr) {
	if isSubject(a.Key) {
		key.WriteString("\x00" + a.Key + "=" + a.Value.String())
	}
}

// pass reports whether a line may appear at now, and how many like it did not
// since the last one that did.
func (s *seen) pass(key string, now time.Time) (suppressed int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[key]
	if l == nil && len(s.lines) >= limitKeys {
		s.sweep(now)
	}
	if l == nil && len(s.lines) >= limitKeys {
		key = ""
		l = s.lines[key]
	}
	if l == nil {
		s.lines[key] = &line{last: now}
		return 0, true
	}
	if now.Sub(l.last) < limitEvery {
		l.suppressed++
		return 0, false
	}
	suppressed = l.suppressed
	l.last, l.suppressed = now, 0
	return suppressed, true
}

// sweep drops the lines that would pass anyway, at most once per limitEvery.
func (s *seen) sweep(now time.Time) {
	if now.Sub(s.swept) < limitEvery {
		return
	}
	s.swept = now
	for key, l := range s.lines {
		if now.Sub(l.last) >= limitEvery {
			delete(s.lines, key)
		}
	}
}
