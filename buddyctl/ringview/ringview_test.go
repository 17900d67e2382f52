package ringview_test

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/buddyring/buddyring/buddyctl/internal/golden"
	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/buddyctl/ringview"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

var update = flag.Bool("update", false, "write the golden files")

// ring is a healthy ring of n servers.
func ring(n int) *coordinatorv1.GetRingResponse {
	r := &coordinatorv1.GetRingResponse{Revision: 42, Epoch: 3}
	id := func(i int) string { return fmt.Sprintf("web-%d", (i+n)%n+1) }
	for i := range n {
		m := &coordinatorv1.RingMember{ServerId: id(i), Phase: coordinatorv1.Phase_PHASE_ACTIVE, Zone: "a", Rack: fmt.Sprintf("r%d", i%3)}
		if n > 1 {
			m.FirstBuddy, m.SecondBuddy = id(i+1), id(i-1)
		}
		r.Members = append(r.Members, m)
	}
	return r
}

func draw(t *testing.T, r *coordinatorv1.GetRingResponse, width int) string {
	t.Helper()
	var b strings.Builder
	if err := ringview.Write(&b, r, output.Terminal{Width: width}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, n := range []int{0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 24} {
		all.WriteString(draw(t, ring(n), 0) + "\n")
	}
	marked, yes := ring(6), true
	marked.Members[1].Phase = coordinatorv1.Phase_PHASE_HELD
	marked.Members[3].Suspect = &yes
	marked.Members[4].TemporaryWatchers = []string{"web-1", "web-2"}
	all.WriteString(draw(t, marked, 0))
	golden.Compare(t, "rings.txt", all.String(), *update)
}

func TestPicturesFitEightyColumns(t *testing.T) {
	t.Parallel()
	pictures := 0
	for n := range 40 {
		text := draw(t, ring(n), 80)
		if strings.Contains(text, "PLACE") {
			continue
		}
		pictures++
		for line := range strings.Lines(text) {
			if got := utf8.RuneCountInString(strings.TrimRight(line, "\n")); got > 80 {
				t.Errorf("%d servers: %d columns: %q", n, got, line)
			}
		}
		for i := range n {
			if !strings.Contains(text, fmt.Sprintf("web-%d", i+1)) {
				t.Errorf("%d servers: web-%d is missing:\n%s", n, i+1, text)
			}
		}
	}
	if pictures < 12 || pictures == 40 {
		t.Errorf("%d of 40 rings are pictures", pictures)
	}
}
