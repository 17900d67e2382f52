package server_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Every kind of wish, of members and of strangers, outlives the leader who has
// taken it: one that dies, and one that steps down. So does the end of a wish.
func TestIntentsSurviveALeaderChange(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		c := startCluster(t, table, 3)
		first := c.all[0]
		agents := first.join("web-1", "web-2", "web-3", "web-4", "web-5")
		intend := func(id string, wish pb.Wish, life time.Duration) {
			t.Helper()
			req := &pb.SetIntentRequest{ServerId: id, Wish: wish}
			if life > 0 {
				req.ExpiresIn = durationpb.New(life)
			}
			if _, err := first.admin.SetIntent(t.Context(), req); err != nil {
				t.Fatalf("set intent: %v", err)
			}
		}
		intend("web-1", pb.Wish_WISH_DRAIN, 0)
		intend("web-2", pb.Wish_WISH_MAINTENANCE, 0)
		intend("web-3", pb.Wish_WISH_BANNED, 0)
		intend("late", pb.Wish_WISH_BANNED, 0)
		intend("web-4", pb.Wish_WISH_DRAIN, time.Minute)
		ends := time.Now().Add(time.Minute)
		stay := []*agent{agents[0], agents[1], agents[3], agents[4]}

		c.kill()
		second := c.successor(6 * time.Second)
		moveTo(t, second, stay...)
		second.wishesHold()
		if _, err := second.admin.StepDown(t.Context(), &pb.StepDownRequest{}); err != nil {
			t.Fatalf("step down: %v", err)
		}
		third := c.all[1]
		if third == second {
			third = c.all[2]
		}
		third.leads(time.Second)
		moveTo(t, third, stay...)
		third.wishesHold()
		time.Sleep(time.Until(ends) + time.Second)
		if phase := third.phases()["web-4"]; phase != pb.Phase_PHASE_ACTIVE {
			t.Errorf("web-4 is %v after the end of its wish", phase)
		}
		third.consistent()
	})
}

// wishesHold checks rows, and that nobody joins who is banned.
func (w *world) wishesHold() {
	w.t.Helper()
	res, err := w.admin.ListServers(w.t.Context(), &pb.ListServersRequest{Pool: "default"})
	if err != nil {
		w.t.Fatalf("list servers: %v", err)
	}
	got := map[string]string{}
	for _, s := range res.GetServers() {
		got[s.GetServerId()] = fmt.Sprintf("%s %s", s.GetIntent(), s.GetPhase())
	}
	for id, want := range map[string]string{
		"web-1": "WISH_DRAIN PHASE_DRAINING", "web-2": "WISH_MAINTENANCE PHASE_ACTIVE", "web-3": "",
		"web-4": "WISH_DRAIN PHASE_DRAINING", "web-5": "WISH_ACTIVE PHASE_ACTIVE", "late": "",
	} {
		if got[id] != want {
			w.t.Errorf("%s is %q, want %q", id, got[id], want)
		}
	}
	var wishes []string
	for token := ""; ; {
		page, err := w.admin.ListIntents(w.t.Context(), &pb.ListIntentsRequest{PageSize: 2, PageToken: token})
		if err != nil {
			w.t.Fatalf("list intents: %v", err)
		}
		for _, i := range page.GetIntents() {
			wishes = append(wishes, fmt.Sprintf("%s/%s %s %t", i.GetPool(), i.GetServerId(), i.GetWish(), i.GetExpiresAt() != nil))
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	want := []string{
		"default/late WISH_BANNED false", "default/web-1 WISH_DRAIN false", "default/web-2 WISH_MAINTENANCE false",
		"default/web-3 WISH_BANNED false", "default/web-4 WISH_DRAIN true",
	}
	if !slices.Equal(wishes, want) {
		w.t.Errorf("the wishes are %q, want %q", wishes, want)
	}
	for _, id := range []string{"web-3", "late"} {
		a := w.newAgent(id)
		a.connect()
		if err := <-a.over; !errors.Is(err, member.ErrRefused) {
			w.t.Errorf("%s is told %v", id, err)
		}
	}
}
