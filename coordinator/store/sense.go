package store

import (
	"fmt"

	"github.com/buddyring/buddyring/internal/member"
)

// checkServer says why a row makes no sense although it can be scanned. What passes
// here reaches every agent and router of the pool, and they refuse the whole message
// for one field that is not as the coordinator's own listeners take it. Buddies are
// left to the ring, which can be mended.
func checkServer(s member.Server) error {
	if _, err := member.ParseID("server_id", string(s.ID)); err != nil {
		return err
	}
	if s.Phase == member.PhaseUnspecified {
		return member.Invalid("phase", "must not be empty")
	}
	if s.Incarnation == 0 {
		return member.Invalid("incarnation", "must not be 0")
	}
	for _, a := range s.Spec.ProbeAddresses {
		if _, err := member.ParseProbeAddress("probe_addresses", a.String(), true); err != nil {
			return err
		}
	}
	return member.CheckSpec("spec", s.Spec)
}

// checkPool does the same with the row of a pool.
func checkPool(p member.PoolState) error {
	if _, err := member.ParsePool("name", string(p.Name)); err != nil {
		return err
	}
	if p.Position.Revision == 0 {
		return member.Invalid("revision", "must not be 0")
	}
	return member.CheckSettings("settings", p.Settings)
}

// errNoPool: somebody has deleted the row that fences a pool and has its settings.
func errNoPool(name member.Pool, in string) error {
	return fmt.Errorf("%s has rows in the table %s and none in the table pool; put that one back, as docs/runbook.md says of POOL_UNREADABLE", name, in)
}
