package demo

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/leak"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

func TestMain(m *testing.M) { leak.Main(m) }

// tellStory plays the story in a scripted world and returns its page.
func tellStory(t *testing.T, w *world, colour bool) (string, *Facts, error) {
	t.Helper()
	var b strings.Builder
	facts := &Facts{Version: "v0", Mode: "namespaces", Probe: "icmp", Hosts: 6}
	var err error
	synctest.Test(t, func(t *testing.T) {
		admin, router := w.serve(t)
		ctx, cancel := context.WithCancel(t.Context())
		feed := make(chan news, newsBacklog)
		s := &story{
			admin: admin, router: router, scene: w, client: &client{router: router, call: w.call},
			page: &page{w: &b, terminal: output.Terminal{Width: 80, Colour: colour}}, facts: facts, news: feed,
			hosts: []string{"web-1", "web-2", "web-3", "web-4", "web-5", "web-6"}, started: time.Now(),
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = listen(ctx, admin, router, feed)
		}()
		err = s.play(ctx)
		cancel()
		<-done
	})
	return b.String(), facts, err
}

// steady hides the numbers of requests, and when the last of them was sent: one
// that goes out in the very millisecond of a mark may come before or after it.
func steady(s string) string {
	s = regexp.MustCompile(`\d+ requests`).ReplaceAllString(s, "N requests")
	s = regexp.MustCompile(`(since; )\d+( failed, the last of them begun at \+)\d+`).ReplaceAllString(s, "${1}N${2}N")
	s = regexp.MustCompile(`(last sent there at \+)\d+`).ReplaceAllString(s, "${1}N")
	return regexp.MustCompile(`(?m)^(    .*\S) +\d+ +\d+$`).ReplaceAllString(s, "$1 N N")
}

func TestStory(t *testing.T) {
	t.Parallel()
	got, facts, err := tellStory(t, newWorld(), false)
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	for l := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimRight(l, "\n")); n > 80 {
			t.Errorf("%d characters: %s", n, l)
		}
	}
	got = steady(got)
	const file = "testdata/story.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("the story differs from %s (-want +got); run with -update to accept it:\n%s", file, d)
	}
	if facts.Client.SentAfterRemoval != 0 || facts.Client.Requests < 1000 || facts.Client.Failed == 0 {
		t.Errorf("client: %+v", facts.Client)
	}
	if c := facts.Crash; c == nil || c.Server != "web-4" || *c.SuspectMS != 455 || c.RemovedMS != 741 || c.AckedMS != 744 || *c.LastPickMS >= 456 || len(c.Rows) != 3 {
		text, _ := json.Marshal(facts.Crash)
		t.Errorf("crash: %s", text)
	}
	if facts.Comeback.PicksWhileHeld != 0 || !facts.AgentKill.Resumed || len(facts.AgentKill.Removed) != 0 {
		t.Errorf("comeback %+v, agent killed %+v", facts.Comeback, facts.AgentKill)
	}
}

func TestStoryColours(t *testing.T) {
	t.Parallel()
	plain, _, err := tellStory(t, newWorld(), false)
	if err != nil {
		t.Fatal(err)
	}
	colourful, _, err := tellStory(t, newWorld(), true)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plain, "\x1b") || !strings.Contains(colourful, "\x1b[") {
		t.Error("colours are not where they should be")
	}
	if d := cmp.Diff(steady(plain), steady(regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(colourful, ""))); d != "" {
		t.Errorf("the words differ with colours:\n%s", d)
	}
}

func TestStoryTellsLiesApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lie  func(*world)
		want string
	}{
		"an agent killed alone is removed": {func(w *world) { w.lieRemoveKilled = true }, "web-6 was removed though only the agent of web-6 had died"},
		"a removed server is routed to":    {func(w *world) { w.lieRouteRemoved = true }, "sent to a removed server"},
		"a held server is routed to":       {func(w *world) { w.lieRouteHeld = true }, "before the end of its hold-down"},
		"nobody is steered away":           {func(w *world) { w.lieNoSuspect = true }, "steered away"},
		"the ring is not closed":           {func(w *world) { w.lieBadRing = true }, "after web-4 has left"},
		"the cause is wrong":               {func(w *world) { w.lieCause = true }, "not as crashed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			c.lie(w)
			page, _, err := tellStory(t, w, false)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q\n%s", err, c.want, page)
			}
		})
	}
}
