package server_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func TestReplaceServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3", "web-4", "web-9")
		r := w.newRouter("r1").subscribe()
		revision := ringOf(t, w).GetRevision()
		r.caughtUp("default", revision)
		for field, req := range map[string]*pb.ReplaceServerRequest{
			"server_id":      {ServerId: "A B", ReplacementId: "web-9"},
			"replacement_id": {ServerId: "web-3"},
		} {
			_, err := w.admin.ReplaceServer(t.Context(), req)
			wantField(t, err, field)
		}
		req := &pb.ReplaceServerRequest{ServerId: "web-3", ReplacementId: "web-9", RequestId: "r1", Reason: "new hardware"}
		dry := &pb.ReplaceServerRequest{ServerId: "web-3", ReplacementId: "web-9", ValidateOnly: true}
		if res, err := w.admin.ReplaceServer(t.Context(), dry); err != nil || res.GetRevision() != revision {
			t.Errorf("validate: %v, %v", res, err)
		}
		res, err := w.admin.ReplaceServer(t.Context(), req)
		if err != nil || res.GetRevision() != revision+1 || res.GetServer().GetServerId() != "web-9" {
			t.Fatalf("replace: %v, %v", res, err)
		}
		if again, err := w.admin.ReplaceServer(t.Context(), req); err != nil || again.GetRevision() != res.GetRevision() {
			t.Errorf("repeat: %v, %v", again, err)
		}
		// Routers see one change: who leaves goes with the rows that close the ring.
		r.caughtUp("default", revision+1)
		time.Sleep(5 * time.Second)
		if _, ok := w.phases()["web-3"]; ok || len(w.phases()) != 4 {
			t.Errorf("members %v", w.phases())
		}
		_, err = w.admin.ReplaceServer(t.Context(), &pb.ReplaceServerRequest{ServerId: "web-1", ReplacementId: "web-3"})
		if !errors.Is(err, member.ErrNotFound) {
			t.Errorf("by one that has left: %v", err)
		}
		w.consistent()
	})
}

// That another machine may take a name ends with the leader who was asked for it: by
// another request the next one allows it.
func TestNameIsGivenAwayByOneLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, newTable(), 2)
		first := c.all[0]
		agents := first.join("web-1", "web-2", "web-3")
		give := func(w *world, request string) {
			t.Helper()
			_, err := w.admin.ReplaceServer(t.Context(), &pb.ReplaceServerRequest{ServerId: "web-1", ReplacementId: "web-1", RequestId: request})
			if err != nil {
				t.Fatal(err)
			}
		}
		give(first, "once")
		if _, err := first.admin.StepDown(t.Context(), &pb.StepDownRequest{}); err != nil {
			t.Fatal(err)
		}
		next := c.successor(time.Second)
		moveTo(t, next, agents...)
		give(next, "once")
		other := next.newAgent("web-1")
		other.hello.BootId, other.hello.InstanceId = "other boot", "other run"
		other.hello.Spec.ProbeAddresses = []string{"10.1.1.1"}
		other.connect()
		if err := heard(t, other.over); !errors.Is(err, member.ErrAlreadyExists) {
			t.Errorf("the other machine is told %v", err)
		}
		give(next, "again")
		other.connect()
		other.welcomed()
		next.consistent()
	})
}
