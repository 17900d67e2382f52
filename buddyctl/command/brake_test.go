package command_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/buddyctl/internal/golden"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// A pool whose removals are held is an answer that is no.
func TestHeldBrake(t *testing.T) {
	t.Parallel()
	n, admin := &network{}, busyAdmin()
	admin.brake = heldBrake()
	n.serve(t, "127.0.0.1:7401", admin, nil)
	r := n.run(t, "brake")
	if r.code != 1 || r.stderr != "buddyctl: removals by verdict are held\n" {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
	golden.Compare(t, "brake_held.txt", r.stdout, *update)
}

// A pool that removes nobody anyway says so.
func TestBrakeOfAPoolThatRemovesNobody(t *testing.T) {
	t.Parallel()
	for mode, want := range map[coordinatorv1.Mode]string{
		coordinatorv1.Mode_MODE_SHADOW: "the pool is in shadow mode: nobody is removed\n",
		coordinatorv1.Mode_MODE_PAUSED: "the pool is paused: nobody is removed\n",
	} {
		n, admin := &network{}, busyAdmin()
		admin.pools[0].Settings.Mode = mode
		n.serve(t, "127.0.0.1:7401", admin, nil)
		if r := n.run(t, "brake"); r.code != 0 || !strings.HasPrefix(r.stdout, want) {
			t.Errorf("exit %d, stdout %q, stderr %q, want %q", r.code, r.stdout, r.stderr, want)
		}
	}
}

// What a safety rule refuses has an exit status of its own.
func TestReleaseIsRefused(t *testing.T) {
	t.Parallel()
	n, admin := &network{}, busyAdmin()
	admin.fail = func(string) error {
		return fmt.Errorf("release: %w", &member.RefusedError{Rule: "not_held", Reason: "neither brake nor floor hold the removal of db-1"})
	}
	n.serve(t, "127.0.0.1:7401", admin, nil)
	if r := n.run(t, "brake", "release", "db-1"); r.code != 4 || r.stdout != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}
