package output_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		got, want string
	}{
		{output.Name(coordinatorv1.Phase_PHASE_SERVICE_DOWN), "service_down"},
		{output.Name(coordinatorv1.LeaderState_LEADER_STATE_STANDBY), "standby"},
		{output.Name(routerv1.Policy_POLICY_P2C), "p2c"},
		{output.Name(routerv1.State_STATE_HELD_BACK), "held_back"},
		{output.Name(coordinatorv1.Cause_CAUSE_UNSPECIFIED), "-"},
		{output.Name(coordinatorv1.Phase(99)), "unknown"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	phases := coordinatorv1.Phase(0).Descriptor()
	for _, name := range output.Names(phases) {
		n, err := output.ParseName("phase", phases, name)
		if err != nil || output.Name(coordinatorv1.Phase(n)) != name {
			t.Errorf("%q: %d, %v", name, n, err)
		}
	}
	for _, name := range []string{"", "unspecified", "up"} {
		if _, err := output.ParseName("phase", phases, name); err == nil {
			t.Errorf("%q is a phase", name)
		}
	}
}

func TestAges(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 999 * time.Millisecond: "0s", 12 * time.Second: "12s", 59999 * time.Millisecond: "59s",
		time.Minute: "1m", 3*time.Minute + 59*time.Second: "3m", time.Hour: "1h", 47*time.Hour + time.Minute: "47h",
		48 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		if got := output.Age(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	if got := output.Since(now, nil) + output.Until(now, nil) + output.RTT(nil); got != "---" {
		t.Errorf("unset: %q", got)
	}
	if got := output.Since(now, timestamppb.New(now.Add(-time.Minute))) + output.Until(now, timestamppb.New(now.Add(time.Hour))); got != "1m1h" {
		t.Errorf("set: %q", got)
	}
	for d, want := range map[time.Duration]string{
		0: "0 ms", 310 * time.Microsecond: "0.31 ms", 3 * time.Millisecond: "3 ms", 12345 * time.Microsecond: "12 ms", -time.Second: "-1000 ms",
	} {
		if got := output.RTT(durationpb.New(d)); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestGrid(t *testing.T) {
	t.Parallel()
	g := output.NewGrid("NAME", "TEXT")
	g.Add("a", "one\ttwo\nthree")
	g.Add("länger", "")
	var b strings.Builder
	if err := g.Write(&b, 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("NAME    TEXT\na       one two three\nlänger  -\n", b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Reset()
	if err := g.Write(&b, 12); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("NAME    TEXT\na       one…\nlänger  -\n", b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.StringMatching(`[a-zäö]{1,30}`)).Draw(t, "words")
		width := rapid.IntRange(1, 40).Draw(t, "width")
		lines := output.Wrap(strings.Join(words, " "), width)
		if len(lines) == 0 {
			t.Fatal("no line")
		}
		for _, l := range lines {
			if n := len([]rune(l)); n > width {
				t.Fatalf("%d columns: %q", n, l)
			}
		}
		if strings.Join(lines, "") != strings.Join(words, "") && strings.ReplaceAll(strings.Join(lines, ""), " ", "") != strings.Join(words, "") {
			t.Fatalf("%q lost something of %q", lines, words)
		}
	})
}

func TestLineCannotSteer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		line := output.Line(rapid.String().Draw(t, "text"))
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f }) {
			t.Fatalf("%q", line)
		}
	})
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	if got := output.Detect(&strings.Builder{}, func(string) string { return "" }); got != (output.Terminal{}) {
		t.Errorf("a buffer is %+v", got)
	}
	if got := (output.Terminal{}).Paint(output.Red, "x"); got != "x" {
		t.Errorf("without colour: %q", got)
	}
	if got := (output.Terminal{Colour: true}).Paint(output.Red, "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("with colour: %q", got)
	}
}

// full fails every write, as a full disk does.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestWriteErrorsAreReported(t *testing.T) {
	t.Parallel()
	m := &coordinatorv1.Pool{Pool: "default"}
	for name, err := range map[string]error{
		"grid": output.NewGrid("A").Write(full{}, 0),
		"json": output.WriteJSON(full{}, m),
		"line": output.WriteJSONLine(full{}, m),
		"yaml": output.WriteYAML(full{}, m),
		"doc":  output.WriteYAMLDocument(full{}, m),
	} {
		if err == nil {
			t.Errorf("%s: a full disk is no error", name)
		}
	}
}
