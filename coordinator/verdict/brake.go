package verdict

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// ZoneLeast is the size from which a zone has a brake of its own.
const ZoneLeast = 6

// Census is what the brake and the floor count.
type Census struct {
	// Members is the size of the pool before the losses that Suspects counts:
	// those present now, and those removed within the window and not back.
	Members int
	// LargestRack is the size of the largest rack, counted likewise.
	LargestRack int
	// Suspects counts the servers that speak for a mass failure: those removed by
	// verdict within the window, and those suspect now whose stream does not
	// prove them alive. Each counts once; those whose loss an operator has
	// confirmed do not count.
	Suspects int
	// Zones are in order of their names.
	Zones []Zone
	// ReferenceSize is the size that the pool is meant to have; Lost counts the
	// members lost by verdict and not back, see Lost; Going those present by its
	// words that count as Suspects.
	ReferenceSize, Lost, Going int
}

// Zone is the part of a census that is in one zone. Servers without a zone are
// in none.
type Zone struct {
	Name           string
	Size, Suspects int
}

// BrakeLimit is how many suspects the brake lets pass in a pool of so many:
//
//	max(least, percent of members, min(largest rack, rack percent of members))
//
// with percentages rounded down. The brake is on when the suspects are more. A
// percent of 100 switches it off: there are no more suspects than members.
func BrakeLimit(members, largestRack int, s member.Settings) int {
	return max(s.BrakeLeast, share(s.BrakePercent, members), min(largestRack, share(s.BrakeRackPercent, members)))
}

// ZoneLimit is how many suspects the brake lets pass in a zone of so many:
//
//	zone percent of its size
//
// rounded down, from a size of ZoneLeast on; all of a smaller one.
func ZoneLimit(size int, s member.Settings) int {
	if size < ZoneLeast {
		return size
	}
	return share(s.BrakeZonePercent, size)
}

// FloorLimit is how many members may be lost by verdict and not be back:
//
//	max(1, percent of the reference size)
//
// rounded down. A percent of 100 switches the floor off.
func FloorLimit(reference int, s member.Settings) int {
	return max(1, share(s.FloorPercent, reference))
}

// Lost is how many members are lost by verdict and not back:
//
//	min(reference size − present size, servers removed by verdict that are not present)
//
// so that a shutdown, an operator or a join in the place of a lost member
// leaves nothing lost. Present is who has been ACTIVE: a member that is JOINING
// or HELD fills no place yet, be it new or back, unless the pool has become larger by it.
func Lost(reference, present, removed int) int {
	return min(max(0, reference-present), removed)
}

func share(percent, of int) int { return percent * of / 100 }

// Brake says by which rule the brake is on; false if it is not.
func Brake(c Census, s member.Settings) (Ruling, bool) {
	if limit := BrakeLimit(c.Members, c.LargestRack, s); c.Suspects > limit {
		return Ruling{Undecided, "brake", fmt.Sprintf("%d of %d servers are suspect or were removed within %s, and the brake allows %d",
			c.Suspects, c.Members, plain(s.BrakeWindow), limit)}, true
	}
	for _, z := range c.Zones {
		if limit := ZoneLimit(z.Size, s); z.Suspects > limit {
			return Ruling{Undecided, "zone_brake", fmt.Sprintf("%d of %d servers of zone %s are suspect or were removed within %s, and the brake allows %d",
				z.Suspects, z.Size, z.Name, plain(s.BrakeWindow), limit)}, true
		}
	}
	return Ruling{}, false
}

// plain writes a length of time for people.
func plain(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%g s", d.Seconds())
}

// Floor says that removing those who are going would break the floor; false if
// nobody is going or the floor holds.
func Floor(c Census, s member.Settings) (Ruling, bool) {
	limit := FloorLimit(c.ReferenceSize, s)
	if c.Going == 0 || c.Lost+c.Going <= limit || s.FloorPercent >= 100 {
		return Ruling{}, false
	}
	return Ruling{Undecided, "floor", fmt.Sprintf("%d of %d servers are lost and not back, %d more are suspect, and the floor allows %d",
		c.Lost, c.ReferenceSize, c.Going, limit)}, true
}
