package explain_test

import (
	"flag"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buddyring/buddyring/buddyctl/explain"
	"github.com/buddyring/buddyring/buddyctl/internal/golden"
	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(d)) }

func moment(ms int, kind string, round uint64, who, role string) *coordinatorv1.Moment {
	return &coordinatorv1.Moment{At: durationpb.New(time.Duration(ms) * time.Millisecond), Kind: kind, Round: round, Who: who, Role: role}
}

func answer(ms int, round uint64, who, result string, lost uint32) *coordinatorv1.Moment {
	m := moment(ms, "answer", round, who, "")
	m.Result, m.Sent, m.Lost = result, 3, lost
	if result == "up" {
		m.Rtt = durationpb.New(310 * time.Microsecond)
	}
	return m
}

func told(m *coordinatorv1.Moment, text string) *coordinatorv1.Moment {
	m.Text = text
	return m
}

func buddies(first, second string) *coordinatorv1.Buddies {
	return &coordinatorv1.Buddies{FirstBuddy: first, SecondBuddy: second}
}

// crash is a server that two buddies and two witnesses miss.
func crash() *coordinatorv1.Decision {
	doubt := moment(0, "doubt", 0, "db-2", "buddy")
	doubt.Result, doubt.Sent, doubt.Lost, doubt.Age = "down", 1, 1, durationpb.New(62*time.Millisecond)
	first := answer(205, 7, "db-4", "down", 1)
	first.Sent, first.Text = 1, "first probe lost"
	return &coordinatorv1.Decision{
		Explanation: &coordinatorv1.Explanation{
			ServerId: "db-3", Incarnation: 9, Verdict: "crashed", Rule: "observers_agree", Revision: 17,
			Text:    "db-3 was removed as crashed: all 3 observers that could judge miss it (3 are needed) and its stream is silent",
			Started: at(-41 * time.Second),

			SafetyBefore: &coordinatorv1.Safety{Members: 12, Suspects: 2, BrakeLimit: 7, Lost: 1, FloorLimit: 6, ReferenceSize: 12},
			SafetyAfter:  &coordinatorv1.Safety{Members: 11, Suspects: 2, BrakeLimit: 7, Lost: 2, FloorLimit: 6, ReferenceSize: 12},
			Timeline: []*coordinatorv1.Moment{
				doubt,
				told(moment(0, "round", 7, "coordinator", ""), "3 probes each over 438ms"),
				moment(0, "nonce", 7, "coordinator", "coordinator"),
				moment(0, "asked", 7, "db-2", "buddy"),
				moment(0, "asked", 7, "db-4", "buddy"),
				moment(0, "asked", 7, "db-6", "witness"),
				moment(0, "asked", 7, "db-1", "witness"),
				first,
				told(moment(206, "suspect", 0, "coordinator", ""), "routers are told to prefer others; missed by db-2, db-4"),
				told(moment(250, "no_answer", 7, "db-1", ""), "another is asked"),
				moment(250, "asked", 7, "db-5", "witness"),
				answer(640, 7, "db-2", "down", 3),
				answer(641, 7, "db-4", "down", 3),
				answer(643, 7, "db-6", "down", 3),
				moment(788, "no_answer", 7, "db-1", ""),
				moment(788, "no_answer", 7, "db-5", ""),
				told(func() *coordinatorv1.Moment {
					m := moment(788, "verdict", 7, "coordinator", "")
					m.Result = "crashed"
					return m
				}(), "all 3 observers that could judge miss it (3 are needed) and its stream is silent"),
				told(moment(795, "committed", 0, "coordinator", ""), "revision 17"),
				told(moment(795, "published", 0, "coordinator", ""), "revision 17"),
			},
			Rows: []*coordinatorv1.RowChange{
				{ServerId: "db-3", Before: buddies("db-4", "db-2")},
				{ServerId: "db-2", Before: buddies("db-3", "db-1"), After: buddies("db-4", "db-1")},
				{ServerId: "db-4", Before: buddies("db-5", "db-3"), After: buddies("db-5", "db-2")},
			},
		},
		Routers: []*coordinatorv1.RouterProgress{
			{RouterId: "edge-1", AppliedAt: at(-41*time.Second + 797*time.Millisecond)},
			{RouterId: "edge-2"},
		},
	}
}

// deaf is a doubt that others do not share, over two rounds.
func deaf() *coordinatorv1.Decision {
	sick := answer(12, 3, "db-6", "cannot_judge", 0)
	sick.Sent, sick.Text = 0, "no route to host"
	up := moment(700, "cleared", 0, "db-2", "buddy")
	up.Result, up.Rtt = "up", durationpb.New(290*time.Microsecond)
	return &coordinatorv1.Decision{Explanation: &coordinatorv1.Explanation{
		ServerId: "db-3", Incarnation: 9, Verdict: "not_removed", Rule: "others_reach_it",
		SafetyBefore: &coordinatorv1.Safety{Members: 12, Suspects: 1, BrakeLimit: 3, FloorLimit: 6, ReferenceSize: 12},
		Text:         "db-3 was not removed: 1 of 3 observers miss it, but 1 reach it",
		Started:      at(-26 * time.Hour),
		Timeline: []*coordinatorv1.Moment{
			moment(0, "doubt", 0, "db-2", "buddy"),
			moment(0, "round", 3, "coordinator", ""),
			moment(0, "asked", 3, "db-2", "buddy"),
			moment(0, "asked", 3, "db-4", "buddy"),
			answer(8, 3, "db-4", "up", 0),
			sick,
			moment(9, "nonce_echo", 3, "db-3", "subject"),
			told(moment(10, "stream_closed", 3, "db-3", "subject"), "the kernel closed the stream: it is alive"),
			func() *coordinatorv1.Moment {
				m := moment(11, "dial", 3, "coordinator", "coordinator")
				m.Result = "up"
				return m
			}(),
			moment(300, "round", 4, "coordinator", ""),
			answer(640, 4, "db-2", "down", 3),
			up,
			told(moment(701, "cleared", 0, "coordinator", ""), "no longer suspect"),
			moment(702, "published", 0, "", ""),
			moment(703, "acked", 0, "router/edge-1", ""),
			told(moment(704, "rehearsed", 0, "coordinator", ""), "a kind of a newer version"),
		},
	}}
}

func cases() map[string]*coordinatorv1.ExplainServerResponse {
	events := []*coordinatorv1.Event{
		{Revision: 17, Kind: "removed", At: at(-41 * time.Second), Text: "db-3 was removed as crashed"},
		{Revision: 9, Kind: "activated", At: at(-26 * time.Hour), Text: "db-3 is active"},
		{Revision: 9, Kind: "joined", At: at(-26 * time.Hour), Text: "db-3 joined between db-2 and db-4"},
	}
	yes := true
	return map[string]*coordinatorv1.ExplainServerResponse{
		"removed": {
			Summary:   "db-3 is not a member: removed at revision 17, 41 s ago, cause crashed: db-3 was removed as crashed: all 3 observers that could judge miss it (3 are needed) and its stream is silent.",
			Decisions: []*coordinatorv1.Decision{crash(), deaf()},
			Events:    events,
			Departure: &coordinatorv1.Departure{Cause: coordinatorv1.Cause_CAUSE_CRASHED, LeftAt: at(-40 * time.Second), FlapScore: 1, HoldDown: durationpb.New(5 * time.Second)},
		},
		"member": {
			Server: &coordinatorv1.Server{
				ServerId: "db-3", Phase: coordinatorv1.Phase_PHASE_HELD, Incarnation: 18, FirstBuddy: "db-4", SecondBuddy: "db-2",
				PhaseSince: at(-2 * time.Second), HeldUntil: at(3 * time.Second), AgentConnected: &yes, Suspect: &yes,
				WaitingFor: "the end of its hold-down after a removal", Intent: coordinatorv1.Wish_WISH_DRAIN,
			},
			Summary:   "db-3 is a member of pool default, held back since 2.0 s ago; its buddies are db-4 and db-2. It is suspect now: routers prefer others. It waits for: the end of its hold-down after a removal.",
			Decisions: []*coordinatorv1.Decision{deaf()},
		},
		"pair": {
			Server: &coordinatorv1.Server{
				ServerId: "db-1", Phase: coordinatorv1.Phase_PHASE_ACTIVE, FirstBuddy: "db-2", SecondBuddy: "db-2",
				PhaseSince: at(-time.Hour), AgentConnected: &yes,
			},
			Summary: "db-1 is active.",
		},
		"alone": {Server: &coordinatorv1.Server{ServerId: "db-1", Phase: coordinatorv1.Phase_PHASE_ACTIVE, PhaseSince: at(-time.Hour)}},
		"hostile": {
			Summary: "red \x1b[31mtext\x1b[0m and a\nline break",
			Decisions: []*coordinatorv1.Decision{{Explanation: &coordinatorv1.Explanation{
				ServerId: "db-3", Verdict: "not_removed", Text: strings.Repeat("x", 200), Started: at(0),
				Timeline: []*coordinatorv1.Moment{told(moment(0, "answer", 1, "db-2\x07", "witness"), strings.Repeat("y", 100))},
			}}},
		},
	}
}

func render(t *testing.T, r *coordinatorv1.ExplainServerResponse, v explain.View) string {
	t.Helper()
	var b strings.Builder
	v.Now = noon
	if err := explain.Write(&b, "db-3", r, v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, r := range cases() {
		golden.Compare(t, name+".txt", render(t, r, explain.View{}), *update)
	}
	golden.Compare(t, "removed_all.txt", render(t, cases()["removed"], explain.View{All: true}), *update)
	golden.Compare(t, "removed_narrow.txt", render(t, cases()["removed"], explain.View{Terminal: output.Terminal{Width: 50}}), *update)
	golden.Compare(t, "removed_colour.txt", render(t, cases()["removed"], explain.View{Terminal: output.Terminal{Width: 120, Colour: true}}), *update)
}

func TestLinesFit(t *testing.T) {
	t.Parallel()
	for name, r := range cases() {
		for _, width := range []int{0, 30, 40, 66, 80, 300} {
			limit := 80
			if width > 0 {
				limit = max(40, min(80, width))
			}
			for line := range strings.Lines(render(t, r, explain.View{All: true, Terminal: output.Terminal{Width: width}})) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > limit {
					t.Errorf("%s at %d: %d columns: %q", name, width, n, line)
				}
			}
		}
	}
}

func TestNothingSteersTheTerminal(t *testing.T) {
	t.Parallel()
	if got := render(t, cases()["hostile"], explain.View{}); strings.ContainsAny(got, "\x1b\x07") {
		t.Errorf("%q", got)
	}
}

func TestColourAddsNothingButColour(t *testing.T) {
	t.Parallel()
	for name, r := range cases() {
		plain := render(t, r, explain.View{All: true})
		coloured := render(t, r, explain.View{All: true, Terminal: output.Terminal{Width: 80, Colour: true}})
		for _, ink := range []string{"0", "1", "2", "31", "32", "33"} {
			coloured = strings.ReplaceAll(coloured, "\x1b["+ink+"m", "")
		}
		if plain != coloured {
			t.Errorf("%s differs by more than colour", name)
		}
	}
}
