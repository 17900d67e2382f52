package store_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func requestsOf(t testing.TB, s *store.Store, id string) []store.PoolRequest {
	t.Helper()
	found, err := s.Requests(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// known returns the ids to which there is an answer.
func known(t testing.TB, s *store.Store, ids ...string) []string {
	t.Helper()
	var all []string
	for _, id := range ids {
		if len(requestsOf(t, s, id)) > 0 {
			all = append(all, id)
		}
	}
	return all
}

// An id is of each pool its own, in another case another one, and forgotten after an hour.
func TestRequests(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	own := func(id string, revision member.Revision, at time.Time) member.Request {
		return member.Request{ID: id, Hash: "hash of " + id, Revision: revision, At: at}
	}
	_, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{
		Name: "db", Settings: member.DefaultSettings(), Requests: []member.Request{own("both", 1, now)},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := change(at)
	c.Requests = []member.Request{
		own("both", 2, now), own("one", 2, now), own("young", 2, now.Add(-59*time.Minute)), own("old", 2, now.Add(-61*time.Minute)),
	}
	commit(t, s, c)
	diff(t, "of two pools", []store.PoolRequest{{Pool: "db", Request: own("both", 1, now)}, {Pool: "web", Request: own("both", 2, now)}},
		requestsOf(t, s, "both"))
	diff(t, "of one", []store.PoolRequest{{Pool: "web", Request: own("one", 2, now)}}, requestsOf(t, s, "one"))
	diff(t, "known", []string{"young"}, known(t, s, "old", "young", "ONE", "nobody's", ""))
}
