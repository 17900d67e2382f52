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
