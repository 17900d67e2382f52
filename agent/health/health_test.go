package health

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestRiseAndFall: each letter is a result of the one check, a pass or a
// failure, and what is said after it.
func TestRiseAndFall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, results, want string }{
		{"up at the first pass", "p", "u"},
		{"down at the third failure", "fff", "..d"},
		{"unknown until one or the other", "ffp", "..u"},
		{"two failures are not enough", "pffpffp", "uuuuuuu"},
		{"three are", "pfff", "uuud"},
		{"one pass is not enough to come back", "fffpfp", "..dddd"},
		{"two are", "pfffpp", "uuuddu"},
		{"for ever", "fffffff", "..ddddd"},
	} {
		var h Health
		h.Assign([]string{"x"})
		var got strings.Builder
		for _, r := range c.results {
			failure := ""
			if r == 'f' {
				failure = "refused"
			}
			h.Result("x", failure)
			got.WriteString(letter(h.Verdict().State))
		}
		if got.String() != c.want {
			t.Errorf("%s: %s gives %s, want %s", c.name, c.results, got.String(), c.want)
		}
	}
}

func letter(s State) string {
	return [...]string{Unknown: ".", Up: "u", Down: "d"}[s]
}

func fail(h *Health, name, failure string) {
	for range Fall {
		h.Result(name, failure)
	}
}

func TestAllChecksMustPass(t *testing.T) {
	t.Parallel()
	var h Health
	if v := h.Verdict(); v != (Verdict{State: Up}) {
		t.Errorf("without checks: %+v", v)
	}
	h.Assign([]string{"a", "b"})
	h.Result("a", "")
	if v := h.Verdict(); v != (Verdict{}) {
		t.Errorf("before the first result of b: %+v", v)
	}
	h.Result("b", "")
	if v := h.Verdict(); v != (Verdict{State: Up}) {
		t.Errorf("both pass: %+v", v)
	}
	fail(&h, "b", "refused")
	if v := h.Verdict(); v != (Verdict{Down, "b: refused"}) {
		t.Errorf("b fails: %+v", v)
	}
	fail(&h, "a", "no answer")
	if v := h.Verdict(); v != (Verdict{Down, "a: no answer; b: refused"}) {
		t.Errorf("both fail: %+v", v)
	}
	h.Result("a", "")
	if v := h.Verdict(); v != (Verdict{Down, "a: it has passed only once; b: refused"}) {
		t.Errorf("one is on its way back: %+v", v)
	}
}

// TestAssign: a new configuration changes nothing about checks that stay.
func TestAssign(t *testing.T) {
	t.Parallel()
	var h Health
	h.Assign([]string{"a", "b"})
	h.Result("a", "")
	fail(&h, "b", "refused")
	h.Result("unknown", "x")
	h.Assign([]string{"c", "b"})
	if v := h.Verdict(); v != (Verdict{Down, "b: refused"}) {
		t.Errorf("b stays: %+v", v)
	}
	h.Assign([]string{"c"})
	if v := h.Verdict(); v != (Verdict{}) {
		t.Errorf("a new one only: %+v", v)
	}
	h.Assign(nil)
	if v := h.Verdict(); v != (Verdict{State: Up}) {
		t.Errorf("none: %+v", v)
	}
}

// TestAgainstTheWholeHistory: what is said follows from all results so far.
func TestAgainstTheWholeHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b"}
		history := map[string]string{}
		var h Health
		h.Assign(names)
		for range rapid.IntRange(1, 30).Draw(t, "results") {
			name, failure := rapid.SampledFrom(names).Draw(t, "check"), rapid.SampledFrom([]string{"", "x"}).Draw(t, "failure")
			h.Result(name, failure)
			history[name] += map[string]string{"": "p", "x": "f"}[failure]
			a, b := after(history["a"]), after(history["b"])
			want := Up
			switch {
			case a == Down || b == Down:
				want = Down
			case a == Unknown || b == Unknown:
				want = Unknown
			}
			if v := h.Verdict(); v.State != want || (v.Text != "") != (want == Down) {
				t.Fatalf("%v: %+v, want %v", history, v, want)
			}
		}
	})
}

// after is the slow, obvious way: the last thing that settled it.
func after(results string) State {
	state := Unknown
	for i := range results {
		switch so := results[:i+1]; {
		case strings.HasSuffix(so, "fff"):
			state = Down
		case strings.HasSuffix(so, "pp") || state == Unknown && strings.HasSuffix(so, "p"):
			state = Up
		}
	}
	return state
}
