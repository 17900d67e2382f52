package history

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
)

// rows are the members of a pool by id.
type rows map[string]Row

// fingerprint is what tells one state of a pool from another: a sum of hashes of its
// rows, whatever their order. ring leaves out what Ask does not know, work is of
// who gets work, as clients are told.
type fingerprint struct{ full, ring, work uint64 }

func printOf(r Row) fingerprint {
	ring := []string{r.ID, r.Phase, r.First, r.Second}
	incarnation := strconv.FormatUint(r.Incarnation, 10)
	p := fingerprint{full: hash(append(ring, incarnation, r.Note)), ring: hash(ring)}
	if r.Phase == active {
		p.work = hash([]string{r.ID, incarnation, r.Note})
	}
	return p
}

// active is the phase of members that get work.
const active = "active"

func hash(parts []string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p)) // it never fails
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

func (p fingerprint) plus(r Row) fingerprint {
	q := printOf(r)
	return fingerprint{p.full + q.full, p.ring + q.ring, p.work + q.work}
}

func (p fingerprint) minus(r Row) fingerprint {
	q := printOf(r)
	return fingerprint{p.full - q.full, p.ring - q.ring, p.work - q.work}
}

// states are the pools at each revision that somebody has seen, by the first who
// saw it.
type states struct {
	seen map[point]sighting
}

type point struct {
	pool     string
	revision uint64
}

type sighting struct {
	who      string
	sum      fingerprint
	members  int
	changeID string
	// whole is false where only the ring was seen.
	whole bool
}

func newStates() *states { return &states{seen: map[point]sighting{}} }

// operations compares all that was read with one another.
func (s *states) operations(all []Operation) (found []Finding) {
	for i := range all {
		o := &all[i]
		if !o.Known || o.Kind != Read && o.Kind != Ask || o.Result.Missing {
			continue
		}
		members, p := rows{}, fingerprint{}
		for _, r := range o.Result.Rows {
			members[r.ID] = r
			p = p.plus(r)
		}
		found = append(found, s.see(point{o.Pool, o.Result.Revision}, members, sighting{
			who: o.String(), sum: p, members: len(members), changeID: o.Result.ChangeID, whole: o.Kind == Read,
		})...)
	}
	return found
}

// see takes what one saw of a pool at a revision.
func (s *states) see(at point, members rows, now sighting) (found []Finding) {
	before, known := s.seen[at]
	if !known || now.whole && !before.whole {
		s.seen[at] = now
	}
	differs := known && (before.members != now.members || before.sum.ring != now.sum.ring ||
		before.whole && now.whole && before.sum.full != now.sum.full)
	if differs {
		found = append(found, Finding{OneHistory, at.pool, fmt.Sprintf("revision %d has other rows (%d) for %s than (%d) for %s",
			at.revision, now.members, now.who, before.members, before.who)})
	}
	if known && now.changeID != "" && before.changeID != "" && now.changeID != before.changeID {
		found = append(found, Finding{OneHistory, at.pool, fmt.Sprintf("revision %d is change %s for %s and change %s for %s",
			at.revision, now.changeID, now.who, before.changeID, before.who)})
	}
	if !known || differs {
		if trouble := brokenRing(members); trouble != "" {
			found = append(found, Finding{Ring, at.pool, fmt.Sprintf("at revision %d, seen by %s, %s", at.revision, now.who, trouble)})
		}
	}
	return found
}

// brokenRing says why the rows are no single symmetric cycle, or is empty.
func brokenRing(members rows) string {
	if len(members) == 1 {
		for id, r := range members {
			if r.First != "" || r.Second != "" {
				return fmt.Sprintf("%s is alone and has buddies", id)
			}
		}
		return ""
	}
	for _, id := range sortedKeys(members) {
		r := members[id]
		next, there := members[r.First]
		if !there || next.Second != id || r.First == id {
			return fmt.Sprintf("%s has the first buddy %q, whose second buddy is %q", id, r.First, next.Second)
		}
	}
	// With all links symmetric, it is one cycle if a walk sees everybody.
	if len(members) == 0 {
		return ""
	}
	start := sortedKeys(members)[0]
	steps := 1
	for id := members[start].First; id != start; id = members[id].First {
		steps++
	}
	if steps != len(members) {
		return fmt.Sprintf("the cycle of %s has %d of %d members", start, steps, len(members))
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
