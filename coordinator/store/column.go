package store

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// timeLayout is how both databases take times and SQLite keeps them. It sorts
// as text.
const timeLayout = "2006-01-02 15:04:05.000000"

// timestamp returns t as the databases keep it, NULL for the zero time.
func timestamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(timeLayout)
}

// instant scans what timestamp wrote.
type instant struct{ to *time.Time }

// Scan implements sql.Scanner.
func (c instant) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.to = time.Time{}
		return nil
	case time.Time:
		*c.to = v.UTC()
		return nil
	}
	s, err := text(v)
	if err != nil {
		return err
	}
	*c.to, err = time.ParseInLocation(timeLayout, s, time.UTC)
	return err
}

// jsonText returns v as a JSON text. MySQL refuses JSON in bytes.
func jsonText(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// document scans what jsonText wrote; NULL leaves the destination alone.
type document struct{ to any }

// Scan implements sql.Scanner.
func (c document) Scan(v any) error {
	if v == nil {
		return nil
	}
	s, err := text(v)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(s), c.to)
}

// word scans a text through a parser; NULL leaves the destination alone.
type word[T any] struct {
	to    *T
	parse func(string) (T, error)
}

// Scan implements sql.Scanner.
func (c word[T]) Scan(v any) error {
	if v == nil {
		return nil
	}
	s, err := text(v)
	if err != nil {
		return err
	}
	*c.to, err = c.parse(s)
	return err
}

func parsed[T any](to *T, parse func(string) (T, error)) word[T] { return word[T]{to, parse} }

func text(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case []byte:
		return string(v), nil
	}
	return "", fmt.Errorf("%T instead of a text", v)
}

// orNull returns s, or NULL when it is empty.
func orNull[T ~string](s T) any {
	if s == "" {
		return nil
	}
	return string(s)
}

// asIs is a parser for names that were valid when they were written.
func asIs[T ~string](s string) (T, error) { return T(s), nil }

func joinAddresses(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, ",")
}

func splitAddresses(s string) ([]netip.Addr, error) {
	if s == "" {
		return nil, nil
	}
	var list []netip.Addr
	for part := range strings.SplitSeq(s, ",") {
		a, err := netip.ParseAddr(part)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}
