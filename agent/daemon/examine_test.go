package daemon

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/agent/prober"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func TestQuestions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		type answer struct {
			Sight pb.Sight
			Final bool
			After time.Duration
		}
		for _, q := range []struct {
			fate prober.Outcome
			want []answer
		}{
			{prober.Replied, []answer{{pb.Sight_SIGHT_UP, true, time.Millisecond}}},
			{prober.Lost, []answer{
				{pb.Sight_SIGHT_DOWN, false, 50 * time.Millisecond}, {pb.Sight_SIGHT_DOWN, true, 550 * time.Millisecond},
			}},
			{prober.NotSent, []answer{{pb.Sight_SIGHT_CANNOT_JUDGE, true, 0}}},
		} {
			f.network.set(addrB, q.fate)
			asked := time.Now()
			p.ask(9, subjectOf("b", addrB))
			var got []answer
			for len(got) < len(q.want) {
				a := expect(p, (*pb.SessionRequest).GetAnswer)
				if a.GetRound() != 9 || a.GetServerId() != "b" || a.GetIncarnation() != 7 {
					t.Errorf("answer %v", a)
				}
				got = append(got, answer{a.GetEvidence().GetSight(), a.GetFinal(), time.Since(asked)})
			}
			if diff := cmp.Diff(q.want, got); diff != "" {
				t.Errorf("%v (-want +got):\n%s", q.fate, diff)
			}
		}
	})
}

func TestTooManyQuestions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		f.network.set(addrB, prober.Lost)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		for round := range uint64(maxExaminations + 3) {
			p.ask(round, subjectOf("b", addrB))
		}
		busy, down := 0, 0
		for busy+down < maxExaminations+3 {
			a := expect(p, (*pb.SessionRequest).GetAnswer)
			switch {
			case a.GetEvidence().GetSight() == pb.Sight_SIGHT_CANNOT_JUDGE && a.GetFinal():
				busy++
			case a.GetFinal():
				down++
			}
		}
		if busy != 3 || down != maxExaminations {
			t.Errorf("%d not judged, %d down", busy, down)
		}
	})
}

// crowd is a question as rounds ask it.
func crowd(round uint64, s *pb.Subject) *pb.Question {
	return &pb.Question{
		Round: round, Subject: s, Probes: 20, Over: durationpb.New(475 * time.Millisecond),
		ProbeTimeout: durationpb.New(50 * time.Millisecond), ConnectAddresses: []string{"db.example.org:80", addrB + ":8080"},
	}
}

// TestConnects: a server that answers no probe but a connect is said to do so at
// once, and in the final answer.
func TestConnects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		f.network.set(addrB, prober.Lost)
		kernel := connectAddr(netip.MustParseAddrPort(addrB + ":8080")).String()
		type answer struct {
			Connect pb.Connect
			Final   bool
			After   time.Duration
		}
		interim, end := answer{After: 50 * time.Millisecond}, 525*time.Millisecond
		for _, q := range []struct {
			fate prober.Outcome
			want []answer
		}{
			{prober.Replied, []answer{
				interim, {pb.Connect_CONNECT_ANSWERED, false, 51 * time.Millisecond}, {pb.Connect_CONNECT_ANSWERED, true, end},
			}},
			{prober.Lost, []answer{interim, {pb.Connect_CONNECT_UNANSWERED, true, end}}},
			{prober.NotSent, []answer{interim, {pb.Connect_CONNECT_CANNOT_JUDGE, true, end}}},
		} {
			f.network.set(kernel, q.fate)
			asked := time.Now()
			p.question(crowd(9, subjectOf("b", addrB)))
			var got []answer
			for len(got) < len(q.want) {
				a := expect(p, (*pb.SessionRequest).GetAnswer)
				if a.GetEvidence().GetSight() != pb.Sight_SIGHT_DOWN {
					t.Errorf("answer %v", a)
				}
				got = append(got, answer{a.GetEvidence().GetConnect(), a.GetFinal(), time.Since(asked)})
			}
			if diff := cmp.Diff(q.want, got); diff != "" {
				t.Errorf("%v (-want +got):\n%s", q.fate, diff)
			}
		}
	})
}

// TestExhaustiveQuestion: all probes go out, and all lost ones are counted.
func TestExhaustiveQuestion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		p.question(&pb.Question{
			Round: 1, Subject: subjectOf("b", addrB), Probes: 10, Over: durationpb.New(2250 * time.Millisecond),
			ProbeTimeout: durationpb.New(50 * time.Millisecond), Exhaustive: true,
		})
		time.Sleep(1100 * time.Millisecond) // five probes are answered
		f.network.set(addrB, prober.Lost)
		if a := expect(p, (*pb.SessionRequest).GetAnswer); a.GetFinal() || a.GetEvidence().GetSight() != pb.Sight_SIGHT_UP {
			t.Errorf("interim answer %v", a)
		}
		a := expect(p, (*pb.SessionRequest).GetAnswer)
		if e := a.GetEvidence(); !a.GetFinal() || e.GetSight() != pb.Sight_SIGHT_UP || e.GetSent() != 10 || e.GetLost() != 5 {
			t.Errorf("final answer %v", a)
		}
	})
}

// TestExaminationsAreBounded: a live server costs one probe; four dead ones at
// once cost what was asked for; and however many there are, there is a bound.
func TestExaminationsAreBounded(t *testing.T) {
	for _, c := range []struct {
		servers, most int
		fate          prober.Outcome
		judged        bool
	}{
		{4, 4, prober.Replied, true},
		{4, 4 * (20 + 1), prober.Lost, true},
		{maxExaminations, maxInFlight, prober.Lost, false},
	} {
		t.Run(fmt.Sprintf("%d servers, outcome %d", c.servers, c.fate), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				coordinator := newCoordinator(t)
				f := start(t, &memory{}, coordinator)
				f.network.set(addrB, c.fate)
				f.network.set(connectAddr(netip.MustParseAddrPort(addrB+":8080")).String(), c.fate)
				p := coordinator.next()
				p.welcome(5, assignmentOf(1))
				for round := range c.servers {
					p.question(crowd(uint64(round), subjectOf("b", addrB)))
				}
				judged := true
				for left := c.servers; left > 0; {
					a := expect(p, (*pb.SessionRequest).GetAnswer)
					judged = judged && a.GetEvidence().GetSight() != pb.Sight_SIGHT_CANNOT_JUDGE
					if a.GetFinal() {
						left--
					}
				}
				if most := f.network.high(); most > c.most || judged != c.judged {
					t.Errorf("%d sockets at a time, want at most %d; all judged: %v", most, c.most, judged)
				}
			})
		})
	}
}
