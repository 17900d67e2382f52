package command_test

import (
	"testing"

	"github.com/buddyring/buddyring/buddyctl/internal/golden"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// What is repaired is told in full, before and after.
func TestRepairs(t *testing.T) {
	t.Parallel()
	n, admin := &network{}, busyAdmin()
	admin.repair = &coordinatorv1.RepairRingResponse{Revision: 43, Repairs: []*coordinatorv1.RingRepair{
		{ServerId: "db-1", Kind: "row_written", Text: `db-1 has buddies "db-9" and "db-5" in the table, "db-2" and "db-5" in memory; it is written as in memory`},
		{ServerId: "db-4", Kind: "agent_told", Text: "the agent of db-4 still watches db-6; it is told again whom to watch"},
	}}
	n.serve(t, "127.0.0.1:7401", admin, nil)
	for name, args := range map[string][]string{
		"repair.txt": {"repair"}, "repair.json": {"repair", "-o", "json"}, "repair_check.txt": {"repair", "--dry-run"},
	} {
		r := n.run(t, args...)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%s: exit %d, stderr %q", name, r.code, r.stderr)
		}
		golden.Compare(t, name, r.stdout, *update)
	}
}
