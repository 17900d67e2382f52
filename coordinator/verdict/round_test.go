package verdict_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	lastProbe = 500 * time.Millisecond
	deadline  = 700 * time.Millisecond
)

// open opens a round and asks observers.
func open(observers ...member.ID) *verdict.Round {
	r := &verdict.Round{
		ID: 1, Subject: "s", Incarnation: 7,
		Opened: start, LastProbe: start.Add(lastProbe), Deadline: start.Add(deadline),
	}
	for _, id := range observers {
		r.Ask(id, start)
	}
	return r
}

// say is an answer so long after the round was opened.
func say(after time.Duration, s verdict.Sight, final bool) verdict.Answer {
	return verdict.Answer{At: start.Add(after), Evidence: verdict.Evidence{Sight: s}, Final: final}
}

func counts(t *testing.T, what string, got verdict.Case, up, down, unknown int) {
	t.Helper()
	if want := (verdict.Case{Others: 3, Up: up, Down: down, Unknown: unknown}); got != want {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func TestRoundCountsOnlyThoseAsked(t *testing.T) {
	t.Parallel()
	r := open("a", "b")
	if r.Answer("stranger", say(lastProbe, verdict.SightDown, true)) {
		t.Error("a stranger's answer counts")
	}
	counts(t, "nobody has answered", r.Case(3, everybody), 0, 0, 2)
	if !r.Answer("a", say(lastProbe, verdict.SightDown, true)) {
		t.Error("an observer's answer does not count")
	}
	counts(t, "a has", r.Case(3, everybody), 0, 1, 1)
	if !r.Heard("a") || r.Heard("b") || r.Heard("stranger") {
		t.Error("Heard is wrong")
	}
}

func TestRoundCountsFinalAnswersOnce(t *testing.T) {
	t.Parallel()
	r := open("a")
	if !r.Answer("a", say(0, verdict.SightDown, false)) {
		t.Error("a first lost probe does not count")
	}
	counts(t, "a first lost probe", r.Case(3, everybody), 0, 0, 1)
	if diff := cmp.Diff([]member.ID{"a"}, r.Down()); diff != "" {
		t.Errorf("a first lost probe is a reason for suspicion:\n%s", diff)
	}
	if !r.Answer("a", say(lastProbe, verdict.SightDown, true)) {
		t.Error("the final answer does not count")
	}
	if r.Answer("a", say(lastProbe, verdict.SightUp, true)) {
		t.Error("a second final answer counts")
	}
	counts(t, "one final answer", r.Case(3, everybody), 0, 1, 0)
}

func TestRoundAsksOnce(t *testing.T) {
	t.Parallel()
	r := open("a", "a", "b")
	if diff := cmp.Diff([]member.ID{"a", "b"}, r.Observers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A sick observer's negatives count nothing, its positives still do.
func TestRoundDistrustsSickObservers(t *testing.T) {
	t.Parallel()
	r := open("a", "b", "c")
	for id, s := range map[member.ID]verdict.Sight{"a": verdict.SightDown, "b": verdict.SightUp, "c": verdict.SightDown} {
		answer := say(lastProbe, s, true)
		if id != "c" {
			answer.SelfScore = 1
		}
		r.Answer(id, answer)
	}
	counts(t, "a and b are sick", r.Case(3, everybody), 1, 1, 1)
	if diff := cmp.Diff([]member.ID{"c"}, r.Down()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Probes that did not extend over the whole time confirm nothing, however sure
// the observer is.
func TestRoundWantsLateProbes(t *testing.T) {
	t.Parallel()
	r := open("a", "b", "c")
	r.Answer("a", say(lastProbe-1, verdict.SightDown, true))
	r.Answer("b", say(lastProbe, verdict.SightDown, true))
	r.Answer("c", say(1, verdict.SightUp, true))
	counts(t, "a was too early", r.Case(3, everybody), 1, 1, 1)
}

func TestRoundProof(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		do   func(*verdict.Round)
		want verdict.Proof
	}{
		"no stream":              {func(*verdict.Round) {}, verdict.ProofAbsent},
		"a stream":               {func(r *verdict.Round) { r.Challenge(5) }, verdict.ProofSilent},
		"an echo":                {func(r *verdict.Round) { r.Challenge(5); r.Echo(5) }, verdict.ProofAlive},
		"another echo":           {func(r *verdict.Round) { r.Challenge(5); r.Echo(6) }, verdict.ProofSilent},
		"an echo of nothing":     {func(r *verdict.Round) { r.Echo(0) }, verdict.ProofAbsent},
		"the older of two":       {func(r *verdict.Round) { r.Challenge(5); r.Challenge(6); r.Echo(5) }, verdict.ProofAlive},
		"the newer of two":       {func(r *verdict.Round) { r.Challenge(5); r.Challenge(6); r.Echo(6) }, verdict.ProofAlive},
		"a FIN":                  {func(r *verdict.Round) { r.Challenge(5); r.KernelAlive() }, verdict.ProofAlive},
		"a FIN without a nonce":  {func(r *verdict.Round) { r.KernelAlive() }, verdict.ProofAlive},
		"silence from before it": {func(r *verdict.Round) { r.StreamSilent() }, verdict.ProofSilent},
		"back after a silence":   {func(r *verdict.Round) { r.StreamSilent(); r.Challenge(5); r.Echo(5) }, verdict.ProofAlive},
		"alive and then a wrong": {func(r *verdict.Round) { r.Challenge(5); r.Echo(5); r.Echo(6) }, verdict.ProofAlive},
		"alive and then another": {func(r *verdict.Round) { r.Challenge(5); r.Echo(5); r.Challenge(6) }, verdict.ProofAlive},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open("a")
			test.do(r)
			if got := r.Proof(); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestRoundReplacesTheSilentOnce(t *testing.T) {
	t.Parallel()
	r := open("a", "b", "c")
	r.Answer("a", say(0, verdict.SightDown, false))
	if got := r.Failing(start.Add(verdict.ReplaceAfter - 1)); got != nil {
		t.Errorf("too early: %v", got)
	}
	at := start.Add(verdict.ReplaceAfter)
	if diff := cmp.Diff([]member.ID{"b", "c"}, r.Failing(at)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r.Replace("b")
	r.Ask("d", at)
	if got := r.Failing(at.Add(verdict.ReplaceAfter)); !cmp.Equal(got, []member.ID{"d"}) {
		t.Errorf("replaced once more: %v", got)
	}
	if !r.Answer("b", say(lastProbe, verdict.SightUp, true)) {
		t.Error("who was replaced and answers after all does not count")
	}
	counts(t, "b answers late", r.Case(3, everybody), 1, 0, 3)
}

// Who cannot judge is replaced at once, while there is time for others' probes.
func TestRoundReplacesWhoCannotJudge(t *testing.T) {
	t.Parallel()
	r := open("a", "b", "c")
	r.Answer("a", say(time.Millisecond, verdict.SightCannotJudge, true))
	r.Answer("b", say(time.Millisecond, verdict.SightUp, true))
	for _, want := range [][]member.ID{{"a"}, nil} {
		if diff := cmp.Diff(want, r.Failing(start.Add(time.Millisecond))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	sick := say(lastProbe-1, verdict.SightDown, true)
	sick.SelfScore = 1
	r.Answer("c", sick)
	if got := r.Failing(start.Add(lastProbe)); got != nil {
		t.Errorf("too late for somebody else: %v", got)
	}
}

// Who doubts itself before it is done is replaced as early; who merely has not made
// up its mind is waited for.
func TestRoundReplacesWhoDoubtsItself(t *testing.T) {
	t.Parallel()
	r := open("a", "b", "c")
	sick := say(time.Millisecond, verdict.SightDown, false)
	sick.SelfScore = 1
	r.Answer("a", sick)
	r.Answer("b", say(time.Millisecond, verdict.SightCannotJudge, false))
	r.Answer("c", say(time.Millisecond, verdict.SightDown, false))
	if diff := cmp.Diff([]member.ID{"a"}, r.Failing(start.Add(time.Millisecond))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Who was never asked cannot be replaced.
func TestRoundReplacesOnlyThoseAsked(t *testing.T) {
	t.Parallel()
	r := open("a")
	r.Replace("stranger")
	if r.Complete(start, false) {
		t.Error("a is not waited for")
	}
}

// A positive counts once its observer is done; until then it is only on its way.
func TestRoundCountsFinalPositives(t *testing.T) {
	t.Parallel()
	r := open("a", "b")
	r.Answer("a", say(0, verdict.SightUp, false))
	counts(t, "a is not done", r.Case(3, everybody), 0, 0, 2)
	if got := r.Reaching(); got != nil {
		t.Errorf("%v reach it", got)
	}
	r.Answer("a", say(0, verdict.SightUp, true))
	counts(t, "a is done", r.Case(3, everybody), 1, 0, 1)
	if diff := cmp.Diff([]member.ID{"a"}, r.Reaching()); diff != "" {
		t.Errorf("reaching (-want +got):\n%s", diff)
	}
}

// The odd one's answer in a second round is for its own account.
func TestRoundLeavesOutTheOdd(t *testing.T) {
	t.Parallel()
	r := open("odd", "b")
	r.Second, r.Odd = true, "odd"
	if r.OddInsists() {
		t.Error("it insists before it has said anything")
	}
	r.Answer("odd", say(lastProbe, verdict.SightUp, true))
	r.Answer("b", say(lastProbe, verdict.SightDown, true))
	got := r.Case(3, everybody)
	if want := (verdict.Case{Others: 3, Down: 1, Second: true}); got != want || r.Reaching() != nil || !r.OddInsists() {
		t.Errorf("%+v, want %+v; reached by %v, it insists: %v", got, want, r.Reaching(), r.OddInsists())
	}
}

// Once there was time enough for all, four answers are enough, and those that
// cannot judge are none.
func TestRoundEndsWithAQuorum(t *testing.T) {
	t.Parallel()
	enough := start.Add(lastProbe + 50*time.Millisecond)
	for name, test := range map[string]struct {
		sights []verdict.Sight
		at     time.Time
		want   bool
	}{
		"four":                        {[]verdict.Sight{verdict.SightDown, verdict.SightDown, verdict.SightUp, verdict.SightDown}, enough, true},
		"four, too early":             {[]verdict.Sight{verdict.SightDown, verdict.SightDown, verdict.SightUp, verdict.SightDown}, enough.Add(-1), false},
		"three":                       {[]verdict.Sight{verdict.SightDown, verdict.SightDown, verdict.SightUp}, enough, false},
		"three, and two cannot judge": {[]verdict.Sight{verdict.SightDown, verdict.SightDown, verdict.SightUp, verdict.SightCannotJudge, verdict.SightCannotJudge}, enough, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ids := []member.ID{"a", "b", "c", "d", "e", "f"}
			r := open(ids...)
			r.Enough = enough
			for i, s := range test.sights {
				r.Answer(ids[i], say(lastProbe, s, true))
			}
			if got := r.Complete(test.at, false); got != test.want {
				t.Errorf("complete: %v, want %v", got, test.want)
			}
			if r.Complete(test.at, true) {
				t.Error("the connect under way is not waited for")
			}
		})
	}
}

// Who is silent is waited for, unless another was asked instead: a pool may have
// nobody else, and answers may have a long way.
func TestRoundWaitsForTheSilentWithoutReplacement(t *testing.T) {
	t.Parallel()
	at := start.Add(lastProbe)
	r := open("a", "b", "c")
	r.Failing(start.Add(verdict.ReplaceAfter))
	r.Answer("a", say(lastProbe, verdict.SightDown, true))
	if r.Complete(at, false) {
		t.Error("b and c are not waited for")
	}
	r.Replace("b")
	r.Ask("d", start.Add(verdict.ReplaceAfter))
	r.Answer("c", say(lastProbe, verdict.SightDown, true))
	if r.Complete(at, false) {
		t.Error("d, in the place of b, is not waited for")
	}
	r.Answer("d", say(lastProbe, verdict.SightDown, true))
	if !r.Complete(at, false) {
		t.Error("b, who was replaced, is waited for")
	}
}

func TestRoundIsComplete(t *testing.T) {
	t.Parallel()
	at := start.Add(lastProbe)
	r := open("a", "b")
	r.Answer("a", say(lastProbe, verdict.SightDown, true))
	if r.Complete(at, false) {
		t.Error("b is missing")
	}
	if !r.Complete(start.Add(deadline), true) {
		t.Error("the deadline has passed")
	}
	if diff := cmp.Diff([]member.ID{"b"}, r.Mute()); diff != "" {
		t.Errorf("mute (-want +got):\n%s", diff)
	}
	r.Answer("b", say(lastProbe, verdict.SightUp, true))
	if r.Complete(at, true) {
		t.Error("the connect is under way")
	}
	if !r.Complete(at, false) {
		t.Error("all have answered")
	}
	if diff := cmp.Diff([]member.ID{"b"}, r.Up()); diff != "" {
		t.Errorf("up (-want +got):\n%s", diff)
	}

	if open().Complete(at, false) {
		t.Error("a round without observers ends before its deadline")
	}
}

// A watcher's reply during the round is a positive, whatever it has answered and
// whether or not it was asked.
func TestRoundCountsRepliesToWatchers(t *testing.T) {
	t.Parallel()
	r := open("a", "b", "c")
	for _, id := range []member.ID{"a", "b"} {
		r.Answer(id, say(lastProbe, verdict.SightDown, true))
	}
	r.Reach("a", start.Add(lastProbe))
	r.Reach("watcher", start.Add(lastProbe))
	counts(t, "a and a watcher reach it", r.Case(3, everybody), 2, 1, 1)
}
