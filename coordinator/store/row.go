package store

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// The columns of each table in the order in which rows are written and scanned.
const (
	serverColumns = "pool, server_id, first_buddy, second_buddy, phase, incarnation, probe_addresses, probe, endpoints, " +
		"zone, rack, weight, labels, boot_id, instance_id, identity, joined_at, phase_since, held_until"
	intentColumns   = "pool, server_id, wish, reason, actor, set_at, expires_at"
	departedColumns = "pool, server_id, incarnation, cause, boot_id, left_at, flap_score, hold_down_ms"
	deletedColumns  = "name, epoch, revision, last_change_id, deleted_at, actor, reason, request_id, hash"
	eventColumns    = "pool, revision, seq, epoch, at, kind, server_id, incarnation, cause, actor, text, explanation"
	requestColumns  = "pool, request_id, hash, revision, at"
)

func serverRow(pool member.Pool, s member.Server) ([]any, error) {
	endpoints := s.Spec.Endpoints
	if endpoints == nil {
		endpoints = []member.Endpoint{}
	}
	labels := s.Spec.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	endpointsText, err := jsonText(endpoints)
	if err != nil {
		return nil, fmt.Errorf("encode endpoints of %s: %w", s.ID, err)
	}
	labelsText, err := jsonText(labels)
	if err != nil {
		return nil, fmt.Errorf("encode labels of %s: %w", s.ID, err)
	}
	return []any{
		pool, s.ID, orNull(s.First), orNull(s.Second), s.Phase.String(), s.Incarnation,
		joinAddresses(s.Spec.ProbeAddresses), s.Spec.Probe.String(), endpointsText,
		s.Spec.Zone, s.Spec.Rack, s.Spec.Weight, labelsText, s.BootID, s.InstanceID, s.Identity,
		timestamp(s.JoinedAt), timestamp(s.Since), timestamp(s.HeldUntil),
	}, nil
}

// scanServer returns no more than the id of a row that it cannot read.
func scanServer(rows *sql.Rows) (pool member.Pool, s member.Server, err error) {
	parseProbe := func(text string) (member.Probe, error) { return member.ParseProbe("probe", text) }
	err = rows.Scan(
		&pool, &s.ID, parsed(&s.First, asIs[member.ID]), parsed(&s.Second, asIs[member.ID]),
		parsed(&s.Phase, member.ParsePhase), &s.Incarnation,
		parsed(&s.Spec.ProbeAddresses, splitAddresses), parsed(&s.Spec.Probe, parseProbe), document{&s.Spec.Endpoints},
		&s.Spec.Zone, &s.Spec.Rack, &s.Spec.Weight, document{&s.Spec.Labels}, &s.BootID, &s.InstanceID, &s.Identity,
		instant{&s.JoinedAt}, instant{&s.Since}, instant{&s.HeldUntil},
	)
	if err != nil {
		return pool, member.Server{ID: s.ID}, fmt.Errorf("read server %s: %w", s.ID, err)
	}
	if len(s.Spec.Endpoints) == 0 {
		s.Spec.Endpoints = nil
	}
	if len(s.Spec.Labels) == 0 {
		s.Spec.Labels = nil
	}
	if err := checkServer(s); err != nil {
		return pool, member.Server{ID: s.ID}, fmt.Errorf("read server %s: %w", s.ID, err)
	}
	return pool, s, nil
}

func intentRow(pool member.Pool, i member.Intent) []any {
	return []any{pool, i.ID, i.Wish.String(), i.Reason, i.Actor, timestamp(i.SetAt), timestamp(i.ExpiresAt)}
}

func scanIntent(rows *sql.Rows) (pool member.Pool, i member.Intent, err error) {
	err = rows.Scan(&pool, &i.ID, parsed(&i.Wish, member.ParseWish), &i.Reason, &i.Actor,
		instant{&i.SetAt}, instant{&i.ExpiresAt})
	if err == nil {
		_, err = member.ParseID("server_id", string(i.ID))
	}
	if err != nil {
		return pool, member.Intent{}, fmt.Errorf("read intent for %s: %w", i.ID, err)
	}
	return pool, i, nil
}

func departedRow(pool member.Pool, d member.Departed) []any {
	return []any{
		pool, d.ID, d.Incarnation, d.Cause.String(), d.BootID, timestamp(d.LeftAt), d.FlapScore, d.HoldDown.Milliseconds(),
	}
}

func scanDeparted(rows *sql.Rows) (pool member.Pool, d member.Departed, err error) {
	var holdDown int64
	err = rows.Scan(&pool, &d.ID, &d.Incarnation, parsed(&d.Cause, member.ParseCause), &d.BootID,
		instant{&d.LeftAt}, &d.FlapScore, &holdDown)
	if err == nil {
		_, err = member.ParseID("server_id", string(d.ID))
	}
	if err != nil {
		return pool, member.Departed{}, fmt.Errorf("read departed %s: %w", d.ID, err)
	}
	d.HoldDown = time.Duration(holdDown) * time.Millisecond
	return pool, d, nil
}

func eventRow(pool member.Pool, at member.Position, seq int, e member.Event) ([]any, error) {
	var explanation any
	if e.Explanation != nil {
		text, err := jsonText(e.Explanation)
		if err != nil {
			return nil, fmt.Errorf("encode explanation for %s: %w", e.ID, err)
		}
		explanation = text
	}
	return []any{
		pool, at.Revision, seq, at.Epoch, timestamp(e.At), string(e.Kind), e.ID, e.Incarnation, e.Cause.String(),
		e.Actor, e.Text, explanation,
	}, nil
}

func scanEvent(rows *sql.Rows) (e member.Event, err error) {
	var pool member.Pool
	err = rows.Scan(&pool, &e.Revision, &e.Seq, &e.Epoch, instant{&e.At}, &e.Kind, &e.ID, &e.Incarnation,
		parsed(&e.Cause, member.ParseCause), &e.Actor, &e.Text, document{&e.Explanation})
	if err != nil {
		return member.Event{}, fmt.Errorf("read event %d/%d: %w", e.Revision, e.Seq, err)
	}
	return e, nil
}

func requestRow(pool member.Pool, r member.Request) []any {
	return []any{pool, r.ID, r.Hash, r.Revision, timestamp(r.At)}
}

func scanRequest(rows *sql.Rows) (pool member.Pool, r member.Request, err error) {
	if err := rows.Scan(&pool, &r.ID, &r.Hash, &r.Revision, instant{&r.At}); err != nil {
		return pool, member.Request{}, fmt.Errorf("read request %s: %w", r.ID, err)
	}
	return pool, r, nil
}
