package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// committerURL makes a run of this program a committer to that store.
const committerURL = "STORE_TEST_COMMITTER_URL"

// commitForever joins one server per change and prints each revision once it is
// acknowledged.
func commitForever(url string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{URL: url})
	if err != nil {
		fail(err)
	}
	pools, err := s.LoadPools(ctx)
	if err != nil {
		fail(err)
	}
	for at := pools[0].Position; ; at.Revision++ {
		if err := s.Commit(ctx, joinOne(at)); err != nil {
			fail(err)
		}
		fmt.Println(at.Revision + 1)
	}
}

// joinOne returns a change by which one server joins, named after its revision.
func joinOne(at member.Position) member.Change {
	c := change(at)
	id := member.ID(fmt.Sprintf("web-%d", c.Revision()))
	c.Put = []member.Server{server(id, member.Incarnation(c.Revision()))}
	c.Events = []member.Event{{Kind: member.EventJoined, At: noon, ID: id}}
	return c
}

// TestSIGKILLLosesNoAcknowledgedChange kills a committing process in the midst
// of its work, several times, at moments that its own progress sets.
func TestSIGKILLLosesNoAcknowledgedChange(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	s := openStore(t, url)
	if _, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()}); err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		acknowledged := killCommitter(t, url, 20+7*round)
		checkHistory(t, s, acknowledged)
	}
}

// killCommitter runs a committer, kills it after n acknowledgements, and
// returns the last revision that it has acknowledged.
func killCommitter(t *testing.T, url string, n int) member.Revision {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), committerURL+"="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var last member.Revision
	for lines := bufio.NewScanner(out); lines.Scan(); n-- {
		if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if n == 0 {
			// What is in the pipe by now has been acknowledged too; the loop reads on.
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || n > 0 {
		t.Fatalf("the committer ended by itself: %v", err)
	}
	return last
}

// checkHistory checks that the table has every change of joinOne up to the last
// acknowledged one, at most one more, and no half of one.
func checkHistory(t *testing.T, s *store.Store, acknowledged member.Revision) {
	t.Helper()
	rows, err := s.Servers(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	list, at := rows.Servers, rows.At
	if at.Revision < acknowledged || at.Revision > acknowledged+1 {
		t.Errorf("the table is at %d; %d was acknowledged last", at.Revision, acknowledged)
	}
	have := map[member.ID]bool{}
	for _, row := range list {
		have[row.ID] = true
	}
	for r := member.Revision(2); r <= at.Revision; r++ {
		if !have[member.ID(fmt.Sprintf("web-%d", r))] {
			t.Errorf("revision %d is lost", r)
		}
	}
	history, err := s.EventsFrom(t.Context(), "web", 1, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if n := int(at.Revision) - 1; len(list) != n || len(history) != n {
		t.Errorf("%d rows and %d events at revision %d, want %d each", len(list), len(history), at.Revision, n)
	}
}
