package client

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/buddyring/buddyring/internal/member"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/view"
)

// errProtocol says that a router has sent what it must not.
var errProtocol = errors.New("the router breaks the protocol")

// list is a pool as one router tells it. It is immutable.
type list struct {
	storeID  string
	position member.Position
	// entries are by id, each once.
	entries []view.Entry
}

// after returns the list after a message. It is l itself where the message
// changes nothing. Before the first snapshot l is nil.
func (l *list) after(msg *routerv1.WatchResponse) (*list, error) {
	next := &list{}
	if l != nil {
		*next = *l
	}
	switch m := msg.GetMessage().(type) {
	case *routerv1.WatchResponse_Snapshot:
		entries, err := parseServers(m.Snapshot.GetServers())
		if err != nil {
			return nil, err
		}
		if next.entries, err = sorted(entries); err != nil {
			return nil, err
		}
	case *routerv1.WatchResponse_Delta:
		if err := next.change(l, m.Delta); err != nil {
			return nil, err
		}
	case *routerv1.WatchResponse_Bookmark:
		if l == nil {
			return nil, fmt.Errorf("%w: a bookmark before the snapshot", errProtocol)
		}
	default:
		// A message that only newer clients know changes nothing for this one.
		return l, nil
	}
	f := msg.GetFreshness()
	next.storeID = f.GetStoreId()
	next.position = member.Position{Epoch: member.Epoch(f.GetEpoch()), Revision: member.Revision(f.GetRevision())}
	if msg.GetBookmark() != nil && l.at(next) {
		return l, nil
	}
	return next, nil
}

// at reports whether two lists stand for the same point of the same history.
func (l *list) at(o *list) bool { return l.storeID == o.storeID && l.position == o.position }

func (l *list) change(from *list, d *routerv1.WatchDelta) error {
	if from == nil {
		return fmt.Errorf("%w: a delta before the snapshot", errProtocol)
	}
	put, err := parseServers(d.GetPut())
	if err != nil {
		return err
	}
	gone := make(map[member.ID]bool, len(put)+len(d.GetRemoved()))
	for _, id := range d.GetRemoved() {
		gone[member.ID(id)] = true
	}
	for _, e := range put {
		gone[e.Server.ID] = true
	}
	for _, e := range from.entries {
		if !gone[e.Server.ID] {
			put = append(put, e)
		}
	}
	l.entries, err = sorted(put)
	return err
}

// sorted sorts entries by id, in place, and refuses twins.
func sorted(entries []view.Entry) ([]view.Entry, error) {
	slices.SortFunc(entries, func(a, b view.Entry) int { return cmp.Compare(a.Server.ID, b.Server.ID) })
	for i := 1; i < len(entries); i++ {
		if id := entries[i].Server.ID; id == entries[i-1].Server.ID {
			return nil, fmt.Errorf("%w: server %q is there twice", errProtocol, id)
		}
	}
	return entries, nil
}

// before reports whether l is an earlier point of the history of o than o.
func (l *list) before(o *list) bool {
	return l.storeID == o.storeID && cmp.Or(
		cmp.Compare(l.position.Epoch, o.position.Epoch), cmp.Compare(l.position.Revision, o.position.Revision),
	) < 0
}
