package history

import (
	"fmt"
	"time"
)

// clients judges what routers tell the clients that watch a pool, and counts the
// messages after which it is known what the pool was. Who gets work is compared
// with the rows at that revision, so the servers' services must all be well.
// Another run of a router, or another router, may be behind.
func clients(streams []Stream, all *states) (found []Finding, compared int) {
	told := func(s Stream) bool { return s.Router != "" }
	runs := runsOf(streams)
	byClient := inOrder(streams, told)
	for _, name := range sortedKeys(byClient) {
		c := &client{name: name, all: all, runs: runs}
		for _, s := range byClient[name] {
			c.stream(s)
		}
		found, compared = append(found, c.found...), compared+c.compared
	}
	return found, compared
}

// runs is when each run of each router was seen first.
type runs map[string]map[string]time.Duration

func runsOf(streams []Stream) runs {
	all := runs{}
	for _, s := range streams {
		for _, m := range s.Messages {
			if s.Router == "" || m.Kind != Snapshot {
				continue
			}
			if all[s.Router] == nil {
				all[s.Router] = map[string]time.Duration{}
			}
			if first, known := all[s.Router][m.Run]; !known || m.At < first {
				all[s.Router][m.Run] = m.At
			}
		}
	}
	return all
}

// over reports whether a later run than this one had been seen of the router by a
// time, or this one is none of its runs.
func (r runs) over(router, run string, by time.Duration) bool {
	begun, known := r[router][run]
	for _, first := range r[router] {
		if first > begun && first < by {
			return true
		}
	}
	return !known
}

// client is what one client knows of its pool, as its streams told it.
type client struct {
	name     string
	all      *states
	runs     runs
	found    []Finding
	compared int

	storeID, router, run string
	picture
	// astray says that it knows something else than the table had, which was said.
	astray bool
}

func (c *client) breach(rule Rule, m Message, format string, args ...any) {
	c.found = append(c.found, Finding{rule, c.name, fmt.Sprintf("%s at %s ", m.Kind, m.At) + fmt.Sprintf(format, args...)})
}

func (c *client) stream(s Stream) {
	for i, m := range s.Messages {
		if c.storeID != "" && m.StoreID != c.storeID {
			c.breach(OneHistory, m, "is of store %s, the one before was of %s", m.StoreID, c.storeID)
		}
		c.storeID = m.StoreID
		switch {
		case m.Kind == Snapshot:
			c.snapshot(s, m, i == 0)
		case m.Kind != Delta && m.Kind != Bookmark:
			c.breach(Ordered, m, "is no message for clients")
			return
		case i == 0 && !c.resumes(s, m):
			return
		}
		c.advance(m)
		for _, id := range m.Gone {
			c.drop(id)
		}
		for _, r := range m.Put {
			// Suspects get work. Who is held back is no member.
			if r.Phase == "suspect" {
				r.Phase = active
			}
			c.put(r)
		}
		c.look(m)
	}
}

// resumes takes the first message of a stream that goes on from a resume point.
func (c *client) resumes(s Stream, m Message) bool {
	switch {
	case len(s.Resume) != 1 || s.Resume[0].Revision != c.at.Revision || s.Run != c.run:
		c.breach(Resumable, m, "comes where a snapshot must: the client does not stand at a resume point")
	case s.Router != c.router || c.runs.over(s.Router, s.Run, s.Opened):
		c.breach(Resumable, m, "comes from %s where a snapshot must: the resume point is of run %s of %s", s.Router, s.Run, c.router)
	default:
		return true
	}
	return false
}

func (c *client) snapshot(s Stream, m Message, first bool) {
	another := s.Router != c.router || m.Run != c.run
	switch {
	case c.runs.over(s.Router, m.Run, s.Opened):
		c.breach(OneHistory, m, "is of run %s of %s, which is over", m.Run, s.Router)
	case another && !first:
		c.breach(OneHistory, m, "is of run %s, the stream began with %s", m.Run, c.run)
	}
	if another {
		c.at = Position{}
	}
	c.router, c.run, c.astray = s.Router, m.Run, false
	c.picture = picture{at: c.at, rows: rows{}}
}

// advance takes the position of a message.
func (c *client) advance(m Message) {
	if m.Position.Revision < c.at.Revision {
		c.breach(Ordered, m, "is revision %d, after %d", m.Position.Revision, c.at.Revision)
	}
	if m.Position.Epoch < c.at.Epoch {
		c.breach(Fenced, m, "is of epoch %d, after one of %d", m.Position.Epoch, c.at.Epoch)
	}
	c.at = m.Position
}

// look compares who gets work with the pool at this revision.
func (c *client) look(m Message) {
	is, known := c.all.seen[point{c.at.Pool, c.at.Revision}]
	if !known || !is.whole {
		return
	}
	c.compared++
	if wrong := c.sum.work != is.sum.work; wrong && !c.astray {
		c.astray = true
		c.breach(Told, m, "of %s comes to others that get work at revision %d than for %s", c.at.Pool, c.at.Revision, is.who)
	}
}
