package verdict_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

func TestBrakeLimit(t *testing.T) {
	t.Parallel()
	s := member.DefaultSettings()
	tests := map[string]struct{ members, rack, want int }{
		"the demo":                      {6, 1, 3},
		"small":                         {20, 1, 3},
		"from forty on a tenth":         {40, 1, 4},
		"a rack of forty of a thousand": {1000, 40, 100},
		"a rack of 200 of a thousand":   {1000, 200, 200},
		"a rack that is half the pool":  {1000, 500, 250},
		"one rack":                      {12, 12, 3},
		"an empty pool":                 {0, 0, 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := verdict.BrakeLimit(test.members, test.rack, s); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

// TestBrakeExhaustively compares with the words of the rule, in fractions
// instead of limits, for all pools up to 40.
func TestBrakeExhaustively(t *testing.T) {
	t.Parallel()
	s := member.DefaultSettings()
	for members := range 41 {
		for rack := range members + 1 {
			for suspects := range members + 1 {
				n := float64(suspects)
				exceeds := suspects > 3 && n > .1*float64(members) && (suspects > rack || n > .25*float64(members))
				ruling, on := verdict.Brake(verdict.Census{Members: members, LargestRack: rack, Suspects: suspects}, s)
				if on != exceeds {
					t.Fatalf("%d of %d suspect, largest rack %d: on %v, want %v", suspects, members, rack, on, exceeds)
				}
				if on && ruling.Rule != "brake" {
					t.Fatalf("rule %q", ruling.Rule)
				}
			}
		}
	}
	s.BrakePercent = 100
	for size := range 41 {
		for suspects := range size + 1 {
			exceeds := size >= 6 && float64(suspects) > .33*float64(size)
			c := verdict.Census{Members: size, Suspects: suspects, Zones: []verdict.Zone{{"a", size, 0}, {"b", size, suspects}}}
			ruling, on := verdict.Brake(c, s)
			if on != exceeds {
				t.Fatalf("%d of %d of a zone suspect: on %v, want %v", suspects, size, on, exceeds)
			}
			if on && ruling.Rule != "zone_brake" {
				t.Fatalf("rule %q", ruling.Rule)
			}
		}
	}
}

func TestFloorExhaustively(t *testing.T) {
	t.Parallel()
	s := member.DefaultSettings()
	for reference := range 41 {
		for lost := range reference + 1 {
			for going := range reference - lost + 1 {
				sum := lost + going
				breaks := going > 0 && sum > 1 && float64(sum) > .5*float64(reference)
				_, holds := verdict.Floor(verdict.Census{ReferenceSize: reference, Lost: lost, Going: going}, s)
				if holds != breaks {
					t.Fatalf("%d lost of %d, %d going: holds %v, want %v", lost, reference, going, holds, breaks)
				}
			}
		}
	}
}

// Only a hundred percent switches the floor off.
func TestFloorOfNearlyAll(t *testing.T) {
	t.Parallel()
	s, c := member.DefaultSettings(), verdict.Census{ReferenceSize: 200, Lost: 198, Going: 1}
	for percent, want := range map[int]bool{98: true, 99: true, 100: false} {
		s.FloorPercent = percent
		if _, holds := verdict.Floor(c, s); holds != want {
			t.Errorf("%d percent: holds %v, want %v", percent, holds, want)
		}
	}
}

// TestBrakeProperties: a hundred percent is off, more suspects never release a
// brake, and larger settings never put one on.
func TestBrakeProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := func(name string, most int) int { return rapid.IntRange(0, most).Draw(t, name) }
		s := member.Settings{
			BrakeLeast: n("least", 50), BrakePercent: n("percent", 100), BrakeRackPercent: n("rack percent", 100),
			BrakeZonePercent: n("zone percent", 100), FloorPercent: n("floor percent", 100), BrakeWindow: time.Minute,
		}
		c := verdict.Census{Members: n("members", 2000), ReferenceSize: n("reference", 2000)}
		c.LargestRack, c.Suspects = n("rack", c.Members), n("suspects", c.Members)
		c.Going = n("going", c.Suspects)
		c.Lost = verdict.Lost(c.ReferenceSize, n("present", 2000), n("removed", 2000))
		zone := verdict.Zone{Name: "z", Size: n("zone", c.Members)}
		zone.Suspects = n("of the zone", min(zone.Size, c.Suspects))
		c.Zones = []verdict.Zone{zone}
		if c.Lost < 0 || c.Lost > c.ReferenceSize {
			t.Fatalf("%d lost of %d", c.Lost, c.ReferenceSize)
		}

		_, braked := verdict.Brake(c, s)
		_, floored := verdict.Floor(c, s)
		more := c
		more.Suspects, more.Going = c.Suspects+1, c.Going+1
		if _, still := verdict.Brake(more, s); braked && !still {
			t.Fatalf("released by another suspect: %+v", c)
		}
		if _, still := verdict.Floor(more, s); floored && !still {
			t.Fatalf("the floor gives way to another suspect: %+v", c)
		}
		larger := s
		larger.BrakeLeast, larger.BrakePercent = s.BrakeLeast+n("more least", 50), min(100, s.BrakePercent+n("more percent", 100))
		larger.BrakeZonePercent, larger.FloorPercent = min(100, s.BrakeZonePercent+n("more zone", 100)), min(100, s.FloorPercent+n("more floor", 100))
		if _, still := verdict.Brake(c, larger); !braked && still {
			t.Fatalf("put on by larger settings: %+v", c)
		}
		if _, still := verdict.Floor(c, larger); !floored && still {
			t.Fatalf("the floor rises with larger settings: %+v", c)
		}
		off := s
		off.BrakePercent, off.BrakeZonePercent, off.FloorPercent = 100, 100, 100
		if _, on := verdict.Brake(c, off); on {
			t.Fatalf("on although switched off: %+v", c)
		}
		if _, on := verdict.Floor(c, off); on {
			t.Fatalf("the floor holds although switched off: %+v", c)
		}
	})
}

func TestLost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ reference, present, removed, want int }{
		{10, 10, 0, 0}, {10, 8, 2, 2}, {10, 8, 1, 1}, {10, 8, 5, 2}, {10, 12, 2, 0}, {10, 8, 0, 0},
	} {
		if got := verdict.Lost(test.reference, test.present, test.removed); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
}

// The reasons go to people.
func TestBrakeSaysWhy(t *testing.T) {
	t.Parallel()
	s := member.DefaultSettings()
	got, _ := verdict.Brake(verdict.Census{Members: 20, LargestRack: 1, Suspects: 7}, s)
	if want := "7 of 20 servers are suspect or were removed within 1 min, and the brake allows 3"; got.Reason != want {
		t.Errorf("%q", got.Reason)
	}
	s.BrakeWindow, s.BrakePercent = 90*time.Second, 100
	got, _ = verdict.Brake(verdict.Census{Members: 20, Suspects: 7, Zones: []verdict.Zone{{"a", 7, 7}}}, s)
	if want := "7 of 7 servers of zone a are suspect or were removed within 90 s, and the brake allows 2"; got.Reason != want {
		t.Errorf("%q", got.Reason)
	}
	s.BrakeWindow = time.Hour
	got, _ = verdict.Brake(verdict.Census{Members: 20, Suspects: 7, Zones: []verdict.Zone{{"a", 7, 7}}}, s)
	if want := "7 of 7 servers of zone a are suspect or were removed within 1 h, and the brake allows 2"; got.Reason != want {
		t.Errorf("%q", got.Reason)
	}
	got, _ = verdict.Floor(verdict.Census{ReferenceSize: 10, Lost: 4, Going: 2}, s)
	if want := "4 of 10 servers are lost and not back, 2 more are suspect, and the floor allows 5"; got.Reason != want {
		t.Errorf("%q", got.Reason)
	}
}
