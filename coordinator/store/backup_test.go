package store_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// fullStore returns a store with something in every column, and the position
// of its pool.
func fullStore(t testing.TB, url string) (*store.Store, member.Position) {
	t.Helper()
	s := openStore(t, url)
	l := lead(t, s)
	p, err := s.CreatePool(t.Context(), l.Epoch, store.NewPool{
		Name: "web", Settings: member.DefaultSettings(), Events: []member.Event{{Kind: member.EventPoolCreated, At: noon}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := joins(p.Position, 300)
	size := 300
	c.ReferenceSize = &size
	c.Events[7].Explanation = &member.Explanation{Text: `it's "quoted" \ ü 🦫` + "\n"}
	c.Put = append(c.Put, bare("plain", 2))
	c.Intents = []member.Intent{{ID: "b", Wish: member.WishBanned, Reason: "why", Actor: "ann", SetAt: noon, ExpiresAt: noon.Add(time.Hour)}}
	c.Departed = []member.Departed{{ID: "b", Incarnation: 1, Cause: member.CauseLossy, BootID: "x", LeftAt: noon, FlapScore: 1.25, HoldDown: time.Second}}
	c.Requests = []member.Request{{ID: "r", Hash: "h", Revision: 2, At: time.Now().UTC().Truncate(time.Microsecond)}}
	at := commit(t, s, c)
	if err := s.PutRouter(t.Context(), l.Epoch, store.RouterRow{ID: "edge", LastSeen: noon}); err != nil {
		t.Fatal(err)
	}
	return s, at
}

func backup(t testing.TB, s *store.Store) []byte {
	t.Helper()
	var out bytes.Buffer
	info, err := s.Backup(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	if checked, err := store.CheckBackup(bytes.NewReader(out.Bytes())); err != nil || checked != info {
		t.Errorf("a fresh backup is of %v (%v), and was written as %v", checked, err, info)
	}
	return out.Bytes()
}

func restore(t testing.TB, s *store.Store, from []byte, replace bool) store.Restored {
	t.Helper()
	r, err := s.Restore(t.Context(), bytes.NewReader(from), store.RestoreOptions{Replace: replace, Actor: "ann", Reason: "drill"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// only returns the lines of a backup that are rows of one table.
func only(from []byte, name string) []string {
	_, after, _ := strings.Cut(string(from), `{"table":"`+name+`"`)
	_, after, _ = strings.Cut(after, "\n")
	before, _, _ := strings.Cut(after, "\n{")
	return strings.Split(before, "\n")
}

func TestRestoreIsWhatWasBackedUp(t *testing.T) {
	t.Parallel()
	s, at := fullStore(t, freshURL(t))
	before, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	saved := backup(t, s)
	other := openStore(t, freshURL(t))
	r := restore(t, other, saved, false)
	after, err := other.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := before[0]
	want.Position = member.Position{Epoch: at.Epoch + 1, Revision: at.Revision + 1_000_000_000}
	want.LastChange = r.StoreID
	diff(t, "pools", []member.PoolState{want}, after)
	if r.Servers != 301 || r.Pools != 1 || r.Backup.StoreID == r.StoreID {
		t.Errorf("restored %+v", r)
	}
	again := backup(t, other)
	for _, table := range []string{"server", "intent", "departed", "request"} {
		diff(t, table, only(saved, table), only(again, table))
	}
	history := events(t, other)
	diff(t, "events", only(saved, "event"), only(again, "event")[:301])
	if len(only(again, "event")) != 302 || len(history) == 0 {
		t.Errorf("%d events", len(only(again, "event")))
	}
	if routers, err := other.Routers(t.Context()); err != nil || len(routers) != 0 {
		t.Errorf("routers %v, %v: what they applied is of another history", routers, err)
	}
	// The next leader goes on from there.
	l := lead(t, other)
	if l.StoreID != r.StoreID || l.Epoch <= r.Epoch {
		t.Errorf("led as %v after %+v", l, r)
	}
	commit(t, other, change(member.Position{Epoch: l.Epoch, Revision: want.Position.Revision}))
}

func TestRestoreFencesWhoeverLeads(t *testing.T) {
	t.Parallel()
	s, at := fullStore(t, freshURL(t))
	saved := backup(t, s)
	joined := commit(t, s, joinOne(at))
	_, err := s.Restore(t.Context(), bytes.NewReader(saved), store.RestoreOptions{})
	var refused *member.RefusedError
	if !errors.As(err, &refused) || refused.Rule != "not_empty" {
		t.Fatalf("%v, want a refusal by not_empty", err)
	}
	restore(t, s, saved, true)
	if err := s.Renew(t.Context(), at.Epoch); !errors.Is(err, member.ErrFenced) {
		t.Errorf("renew: %v, want ErrFenced", err)
	}
	if err := s.Commit(t.Context(), joinOne(joined)); !errors.Is(err, member.ErrFenced) {
		t.Errorf("commit: %v, want ErrFenced", err)
	}
	if n := len(servers(t, s)); n != 301 {
		t.Errorf("%d servers, want those of the backup", n)
	}
}

func TestRestoreOverAFreshCoordinator(t *testing.T) {
	t.Parallel()
	s, _ := fullStore(t, freshURL(t))
	other := openStore(t, freshURL(t))
	if _, err := other.CreatePool(t.Context(), lead(t, other).Epoch, store.NewPool{Name: member.DefaultPool, Settings: member.DefaultSettings()}); err != nil {
		t.Fatal(err)
	}
	restore(t, other, backup(t, s), false)
	if pools, err := other.LoadPools(t.Context()); err != nil || len(pools) != 1 || pools[0].Name != "web" {
		t.Errorf("%d pools, %v", len(pools), err)
	}
}

func TestCheckedRestoreChangesNothing(t *testing.T) {
	t.Parallel()
	s, at := fullStore(t, freshURL(t))
	saved := backup(t, s)
	r, err := s.Restore(t.Context(), bytes.NewReader(saved), store.RestoreOptions{Replace: true, CheckOnly: true})
	if err != nil || r.StoreID != "" || r.Servers != 301 {
		t.Errorf("%+v, %v", r, err)
	}
	commit(t, s, joinOne(at))
}

func TestBadBackups(t *testing.T) {
	t.Parallel()
	s, at := fullStore(t, freshURL(t))
	saved := string(backup(t, s))
	lines := strings.SplitAfter(saved, "\n")
	for name, bad := range map[string]string{
		"empty":           "",
		"something else":  "{}\n",
		"later format":    strings.Replace(saved, `"version":1`, `"version":2`, 1),
		"one letter":      strings.Replace(saved, "web-00007", "web-x0007", 1),
		"a row less":      strings.Replace(saved, lines[20], "", 1),
		"cut":             saved[:len(saved)/2],
		"cut at a line":   strings.Join(lines[:50], ""),
		"without its end": strings.Join(lines[:len(lines)-2], ""),
		"something after": saved + "{}\n",
	} {
		_, err := s.Restore(t.Context(), strings.NewReader(bad), store.RestoreOptions{Replace: true})
		var field *member.FieldError
		if !errors.As(err, &field) || field.Field != "backup" {
			t.Errorf("%s: %v, want a FieldError", name, err)
		}
	}
	commit(t, s, joinOne(at)) // nobody has been fenced
}

// sealed gives a backup that somebody has altered the end that belongs to it.
func sealed(from string) string {
	from = from[:strings.LastIndex(from, `{"rows":`)]
	return fmt.Sprintf("%s{\"rows\":%d,\"sha256\":\"%x\"}\n", from, strings.Count(from, "\n["), sha256.Sum256([]byte(from)))
}

// A sum that is right says nothing about what it is the sum of.
func TestAlteredBackups(t *testing.T) {
	t.Parallel()
	s, at := fullStore(t, freshURL(t))
	saved := string(backup(t, s))
	if sealed(saved) != saved {
		t.Fatal("a fresh backup has another end")
	}
	intents := `{"table":"intent"` + strings.SplitN(strings.SplitN(saved, `{"table":"intent"`, 2)[1], "{", 2)[0]
	for name, c := range map[string]struct{ old, altered, says string }{
		"later schema":          {`"schema":`, `"schema":9`, "newer than schema"},
		"row of no table":       {`{"table":"pool"`, "[\"x\"]\n" + `{"table":"pool"`, "a row of no table"},
		"unknown table":         {`{"table":"server"`, `{"table":"servant"`, `table "servant" is unknown`},
		"a table twice":         {`{"table":"departed"`, intents + `{"table":"departed"`, `table "intent" is unknown, or not in its place`},
		"unknown column":        {`"columns":["name",`, `"columns":["fame",`, `column "fame" of table pool is unknown`},
		"a column twice":        {`"columns":["name","epoch",`, `"columns":["name","name",`, `column "name" of table pool is unknown, or there twice`},
		"no key":                {`"columns":["name","epoch",`, `"columns":["epoch",`, "table pool lacks the column name"},
		"a value less":          {"[\"web\",", "[", "values for"},
		"a value of values":     {"[\"web\",", "[[],", "neither a text, a number nor null"},
		"two values":            {"\n[", "\n[][", "more than one value"},
		"rows of no pool":       {"[\"web\",", "[\"other\",", "are of no pool"},
		"settings that are not": {`\"mode\":\"enforce\"`, `\"mode\":7`, "rows that cannot be read"},
	} {
		altered := strings.Replace(saved, c.old, c.altered, 1)
		if altered == saved {
			t.Errorf("%s: nothing is altered", name)
		}
		_, err := s.Restore(t.Context(), strings.NewReader(sealed(altered)), store.RestoreOptions{Replace: true})
		var field *member.FieldError
		if !errors.As(err, &field) || field.Field != "backup" || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want a FieldError with %q", name, err, c.says)
		}
	}
	if _, err := store.CheckBackup(strings.NewReader(strings.Replace(saved, `{"rows":`, `{"rows":1`, 1))); err == nil {
		t.Error("an end with another number of rows is taken")
	}
	commit(t, s, joinOne(at)) // nobody has been fenced
}

// What is no backup at all is told so, whatever it is; what cannot be read is not.
func TestWhatIsNoBackup(t *testing.T) {
	t.Parallel()
	const no = `backup: it is no backup: its first line is not what "buddyctl backup" writes`
	unread := errors.New("the disk is gone")
	for name, c := range map[string]struct {
		in   io.Reader
		want string
	}{
		"text":           {strings.NewReader("hello\nyou\n"), no},
		"nothing":        {strings.NewReader(""), no},
		"other JSON":     {strings.NewReader("[1, 2]\n"), no},
		"other object":   {strings.NewReader(`{"a": 1}`), no},
		"one long line":  {strings.NewReader(strings.Repeat("x", 17<<20)), no},
		"a disk":         {iotest.ErrReader(unread), "backup: line 1: the disk is gone"},
		"a later format": {strings.NewReader(`{"format":"buddyring-backup","version":2,"new":1}`), "backup: line 1: its format is version 2; this program reads version 1"},
		"a wrong header": {strings.NewReader(`{"format":"buddyring-backup","version":1,"new":1}`), `backup: line 1: json: unknown field "new"`},
		"cut in a line":  {strings.NewReader(`{"format":"buddyring-backup","version":1}` + "\n" + `{"table":"po`), "backup: line 2: it is cut off, or damaged"},
	} {
		if _, err := store.CheckBackup(c.in); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func FuzzCheckBackup(f *testing.F) {
	f.Add(`{"format":"buddyring-backup","version":1,"schema":9,"store_id":"x","epoch":1,"at":"2026-11-25T12:00:00Z"}
{"table":"pool","columns":["name","epoch","revision"]}
["web",1,2.5]
{"rows":1,"sha256":"9aa8f1a4ac6c5d4a5d9c3d5b6d9d7c6a9aa8f1a4ac6c5d4a5d9c3d5b6d9d7c6a"}
`)
	f.Add("[]\n")
	f.Fuzz(func(t *testing.T, in string) {
		if _, err := store.CheckBackup(strings.NewReader(in)); err != nil && !errors.Is(err, member.ErrInvalid) {
			t.Errorf("%v is no FieldError", err)
		}
	})
}
