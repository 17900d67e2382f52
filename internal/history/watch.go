package history

import (
	"cmp"
	"fmt"
	"slices"
)

// resumeWindow is how many revisions a leader keeps for those that resume.
const resumeWindow = 10_000

// watch judges the subscriptions, those of each watcher in their order.
func watch(streams []Stream, all *states) (found []Finding) {
	byWatcher := inOrder(streams, func(s Stream) bool { return s.Router == "" })
	for _, name := range sortedKeys(byWatcher) {
		list := byWatcher[name]
		w := &watcher{name: name, all: all, pools: map[string]*picture{}}
		for _, s := range list {
			w.stream(s)
		}
		found = append(found, w.found...)
	}
	return found
}

// inOrder are the streams of a kind by watcher, each list in its order.
func inOrder(streams []Stream, is func(Stream) bool) map[string][]Stream {
	byWatcher := map[string][]Stream{}
	for _, s := range streams {
		if is(s) {
			byWatcher[s.Watcher] = append(byWatcher[s.Watcher], s)
		}
	}
	for _, list := range byWatcher {
		slices.SortStableFunc(list, func(a, b Stream) int { return cmp.Compare(a.Opened, b.Opened) })
	}
	return byWatcher
}

// watcher is what one watcher knows, as its streams told it.
type watcher struct {
	name  string
	all   *states
	found []Finding

	storeID string
	// epoch is the highest that it has seen.
	epoch uint64
	pools map[string]*picture

	// The rest is of the present stream.
	resume map[string]Position
	begun  Message
	synced uint64
}

// picture is a pool as a watcher knows it.
type picture struct {
	at   Position
	rows rows
	sum  fingerprint
	// live says that the present stream has got as far as at; compacted that a
	// snapshot must come next.
	live, compacted bool
}

func (w *watcher) breach(rule Rule, m Message, format string, args ...any) {
	w.found = append(w.found, Finding{rule, w.name, fmt.Sprintf("%s at %s ", m.Kind, m.At) + fmt.Sprintf(format, args...)})
}

func (w *watcher) stream(s Stream) {
	w.resume, w.begun, w.synced = map[string]Position{}, Message{}, 0
	for _, p := range w.pools {
		p.live, p.compacted = false, false
	}
	for _, p := range s.Resume {
		w.resume[p.Pool] = p
	}
	for i, m := range s.Messages {
		if (m.Kind == Start) != (i == 0) {
			w.breach(Ordered, m, "is message %d of its stream", i+1)
			return
		}
		w.take(s, m)
	}
}

func (w *watcher) take(s Stream, m Message) {
	switch m.Kind {
	case Start:
		w.start(s, m)
	case Compacted:
		w.compacted(m)
	case Snapshot:
		w.hears(m, m.Position.Epoch)
		w.snapshot(m)
	case Delta:
		w.hears(m, m.Position.Epoch)
		w.delta(m)
	case Marks:
		w.hears(m, m.Position.Epoch)
	case Synced:
		w.hears(m, m.Position.Epoch)
		w.sync(m)
	case Bookmark:
		for _, p := range m.Positions {
			w.hears(m, p.Epoch)
			w.bookmark(m, p)
		}
	case Deleted:
		delete(w.pools, m.Position.Pool)
		delete(w.resume, m.Position.Pool)
	}
}

// hears takes the epoch of a message.
func (w *watcher) hears(m Message, epoch uint64) {
	if epoch < w.epoch {
		w.breach(Fenced, m, "is of epoch %d, after one of %d", epoch, w.epoch)
	}
	w.epoch = max(w.epoch, epoch)
}

// start begins a stream. A start of a lower epoch is that of a leader of the
// past; a watcher that hears of it ends the stream, and anything more on it is a
// breach.
func (w *watcher) start(s Stream, m Message) {
	w.begun = m
	if w.storeID != "" && m.StoreID != w.storeID {
		w.breach(OneHistory, m, "is of store %s, the one before was of %s", m.StoreID, w.storeID)
		clear(w.pools)
	}
	w.storeID = m.StoreID
	w.epoch = max(w.epoch, m.Position.Epoch)
	for _, p := range s.Resume {
		if known := w.pools[p.Pool]; known == nil || known.at.Revision != p.Revision {
			w.breach(Resumable, m, "answers a resume point of %s at revision %d, which the watcher does not have", p.Pool, p.Revision)
			delete(w.resume, p.Pool)
		}
	}
}

// compacted may come only where the leader cannot know the resume point: it is
// of an earlier leader, or too old.
func (w *watcher) compacted(m Message) {
	pool := m.Position.Pool
	p, at := w.pools[pool], Position{}
	if from, resumes := w.resume[pool]; resumes {
		at = from
	} else if p != nil && p.live {
		at = p.at
	}
	switch {
	case at.Pool == "":
		w.breach(Resumable, m, "is about %s, which was not resumed", pool)
		return
	case m.OtherHistory:
		w.breach(OneHistory, m, "calls revision %d of %s one of another history", at.Revision, pool)
	}
	p.compacted = true
}

func (w *watcher) snapshot(m Message) {
	at := m.Position
	from, resumes := w.resume[at.Pool]
	delete(w.resume, at.Pool)
	p := w.pools[at.Pool]
	if p == nil {
		p = &picture{}
		w.pools[at.Pool] = p
	}
	switch {
	case (resumes || p.live) && !p.compacted:
		w.breach(Resumable, m, "of %s comes though the stream stood at revision %d", at.Pool, max(p.at.Revision, from.Revision))
	case p.compacted && resumes && from.Epoch == w.begun.Position.Epoch && at.Revision-from.Revision <= resumeWindow:
		w.breach(Resumable, m, "of %s at revision %d comes though revision %d is of the same epoch and in the window", at.Pool, at.Revision, from.Revision)
	}
	if at.Revision < p.at.Revision {
		w.breach(Ordered, m, "of %s is revision %d, after %d", at.Pool, at.Revision, p.at.Revision)
	}
	p.at, p.rows, p.sum, p.live, p.compacted = at, rows{}, fingerprint{}, true, false
	for _, r := range m.Put {
		p.put(r)
	}
	w.look(p, m)
}

func (w *watcher) delta(m Message) {
	to := m.Position
	p := w.pools[to.Pool]
	_, resumes := w.resume[to.Pool]
	delete(w.resume, to.Pool)
	if p == nil || !p.live && !resumes || p.compacted {
		w.breach(Reliable, m, "of %s from revision %d comes where a snapshot must", to.Pool, m.From)
		return
	}
	at := p.at.Revision
	switch {
	case m.From == at && to.Revision > at:
	case m.From > at && resumes:
		w.breach(Resumable, m, "of %s begins at revision %d, the resume point is %d", to.Pool, m.From, at)
	case m.From > at:
		w.breach(Reliable, m, "of %s begins at revision %d, after %d: what is between is missing", to.Pool, m.From, at)
	case m.From == to.Revision:
		w.breach(Atomic, m, "of %s is another part of revision %d", to.Pool, at)
	case to.Revision < at:
		w.breach(Ordered, m, "of %s is revision %d, after %d", to.Pool, to.Revision, at)
	default:
		w.breach(Unique, m, "of %s has the revisions after %d again, after %d", to.Pool, m.From, at)
	}
	for _, id := range m.Gone {
		p.drop(id)
	}
	for _, r := range m.Put {
		p.put(r)
	}
	p.live = true
	p.at.Epoch = to.Epoch
	if to.Revision >= at {
		p.at = to
	}
	w.look(p, m)
}

func (p *picture) put(r Row) {
	p.drop(r.ID)
	p.rows[r.ID] = r
	p.sum = p.sum.plus(r)
}

func (p *picture) drop(id string) {
	if old, there := p.rows[id]; there {
		p.sum = p.sum.minus(old)
		delete(p.rows, id)
	}
}

// look compares the pool with what others saw of it at this revision.
func (w *watcher) look(p *picture, m Message) {
	who := fmt.Sprintf("%s at %s", w.name, m.At)
	w.found = append(w.found, w.all.see(point{p.at.Pool, p.at.Revision}, p.rows, sighting{
		who: who, sum: p.sum, members: len(p.rows), changeID: p.at.ChangeID, whole: true,
	})...)
}

// sync takes the number up to which all marks have been sent.
func (w *watcher) sync(m Message) {
	for _, seq := range m.SoftSeqs {
		if seq < w.synced {
			w.breach(Ordered, m, "is %d, after %d", seq, w.synced)
		}
		w.synced = seq
	}
}

// bookmark takes the word that all up to a revision has come.
func (w *watcher) bookmark(m Message, at Position) {
	p := w.pools[at.Pool]
	_, resumes := w.resume[at.Pool]
	delete(w.resume, at.Pool)
	switch {
	case p == nil || !p.live && !resumes:
		w.breach(Bookmarkable, m, "names revision %d of %s, of which nothing has come", at.Revision, at.Pool)
		return
	case at.Revision > p.at.Revision:
		w.breach(Bookmarkable, m, "names revision %d of %s, and only %d has come", at.Revision, at.Pool, p.at.Revision)
	case at.Revision < p.at.Revision:
		w.breach(Bookmarkable, m, "names revision %d of %s, and %d has come", at.Revision, at.Pool, p.at.Revision)
	}
	p.live, p.at.Epoch = true, at.Epoch
}
