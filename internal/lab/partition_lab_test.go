//go:build lab && mariadb && linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/netlab"
	"github.com/buddyring/buddyring/internal/testdb"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// apart is coordinators with a MariaDB on a host of its own, so that each link between
// them can be cut.
type apart struct {
	*several
	server   *testdb.Server
	database *netlab.Host
}

func newApart(t *testing.T) *apart {
	t.Helper()
	// The first host has the first address.
	const host, address = "database", "10.77.0.1:3306"
	a := &apart{server: testdb.Start(t)}
	a.server.Exec(t, "CREATE DATABASE buddyring CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
	store := "mysql://root@" + address + "/buddyring"
	a.several = newSeveral(t, lab.Config{Hosts: []string{host}, Store: store, Prepare: func(site *lab.Site) error {
		a.database = site.Host(host)
		lis, err := a.database.Listen(t.Context(), "tcp", address)
		if err != nil {
			return err
		}
		a.server.Forward(t, lis)
		return migrate(t, site, store)
	}})
	return a
}

// TestPartitions cuts each link that a coordinator has: to the other coordinators,
// which changes nothing; that of a standby to the database, which is no standby until
// it is mended; and that of the leader, whose successor takes over.
func TestPartitions(t *testing.T) {
	t.Parallel()
	a := newApart(t)
	a.coordinatorsFromEachOther()
	a.standbyFromDatabase()
	a.leaderFromDatabase("web-4")
	a.ends(a.server.Open(t, "buddyring"))
}

// coordinatorsFromEachOther cuts the leader off from the standbys for longer than a
// lease may stand still. They all see the lease in the database, so nothing changes
// hands; a standby refuses changes, and says who takes them.
func (a *apart) coordinatorsFromEachOther() {
	a.t.Helper()
	ring := a.ring()
	var mends []func()
	for _, c := range a.Coordinators() {
		if c != a.leader {
			mends = append(mends, sever(a.t, a.leader.Host(), c.Host()))
		}
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		for _, c := range a.Coordinators() {
			if c != a.leader {
				a.refuses(c, a.leader.Address(), nobody)
			}
		}
	}
	for _, c := range a.Coordinators() {
		if c == a.leader {
			continue
		}
		ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
		if conn, err := a.leader.Host().Dial(ctx, "tcp", c.Address()); err == nil {
			a.t.Errorf("the leader reaches %s", c.ID())
			_ = conn.Close()
		}
		cancel()
		a.await(c.ID()+" to name the leader", func(ctx context.Context) error {
			status, err := c.Status(ctx)
			if err == nil && status.GetLeader() != a.leader.Address() {
				err = fmt.Errorf("it names %q", status.GetLeader())
			}
			return err
		})
	}
	a.goesOn()
	a.ledOn()
	for _, mend := range mends {
		mend()
	}
	a.settled()
	sameRing(a.t, ring, a.ring())
}

// refuses checks that a standby does no change, and names the leader, or nobody.
func (a *apart) refuses(standby *lab.Coordinator, leaders ...string) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 2*time.Second)
	defer cancel()
	_, err := standby.Admin().SetIntent(ctx, &coordinatorv1.SetIntentRequest{
		Pool: lab.Pool, ServerId: "planned", Wish: coordinatorv1.Wish_WISH_BANNED, Reason: "to a standby",
	})
	if to, ok := errors.AsType[*member.NotLeaderError](err); !ok || !slices.Contains(leaders, to.Leader) {
		a.t.Errorf("a change at the standby %s: %v; want one of the names %q", standby.ID(), err, leaders)
	}
}

// nobody is the leader that a coordinator names which has not seen the lease for 4 s.
const nobody = ""

// standbyFromDatabase cuts a standby off from the database, and kills the leader: the
// other standby takes over. When the cut ends, the first one stands by again.
func (a *apart) standbyFromDatabase() {
	a.t.Helper()
	cut := a.standby()
	mend := sever(a.t, cut.Host(), a.database)
	a.await("the alarm of "+cut.ID(), func(ctx context.Context) error { return fails(ctx, cut, true) })
	if code, err := a.ready(cut); err != nil || code != http.StatusServiceUnavailable {
		a.t.Errorf("/readyz of a standby without the database: %d, %v", code, err)
	}
	if err := fails(a.t.Context(), a.leader, false); err != nil {
		a.t.Error(err)
	}
	a.refuses(cut, a.leader.Address(), nobody)
	a.goesOn()
	a.withoutLeader("killed beside a standby without the database", killed, func(gone *lab.Coordinator) error {
		if a.leader == cut {
			a.t.Errorf("%s leads, without the database", cut.ID())
		}
		mend()
		return gone.Start()
	}, 0, 1)
	a.await("the end of the alarm of "+cut.ID(), func(ctx context.Context) error { return fails(ctx, cut, false) })
	if code, err := a.ready(cut); err != nil || code != http.StatusOK {
		a.t.Errorf("/readyz of a standby: %d, %v", code, err)
	}
}

// fails says what is wrong when a coordinator does not say that the database fails, by
// its status and by an alarm, or says so though it should not.
func fails(ctx context.Context, c *lab.Coordinator, want bool) error {
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	alarms, err := c.Admin().ListAlarms(ctx, &coordinatorv1.ListAlarmsRequest{})
	if err != nil {
		return err
	}
	alarmed := false
	for _, alarm := range alarms.GetAlarms() {
		alarmed = alarmed || alarm.GetName() == "STORE_FAILING"
	}
	if failing := status.GetStoreState() == coordinatorv1.StoreState_STORE_STATE_FAILING; failing != want || alarmed != want {
		return fmt.Errorf("%s says that its database fails: %t (%s), by an alarm: %t", c.ID(), failing, status.GetStoreError(), alarmed)
	}
	return nil
}

// ready asks a coordinator for /readyz.
func (a *apart) ready(c *lab.Coordinator) (code int, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return c.Host().Dial(ctx, network, address)
	}}}
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, "http://127.0.0.1:7402/readyz", nil)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// leaderFromDatabase loses all that the leader and the database send to each other, in
// the midst of its commits. A server that crashes meanwhile is marked by that leader,
// and removed by the next, which the first one sends everybody to.
func (a *apart) leaderFromDatabase(server string) {
	a.t.Helper()
	incarnation, old := a.row(server).GetIncarnation(), a.leader
	var mend func()
	a.withoutLeader("without the database", func(c *lab.Coordinator) error {
		mend = sever(a.t, c.Host(), a.database)
		a.crash(server)
		a.steersAtOnce(server)
		a.await("the alarm of "+c.ID(), func(ctx context.Context) error { return fails(ctx, c, true) })
		return nil
	}, func(*lab.Coordinator) error {
		status, err := old.Status(a.t.Context())
		if err != nil || status.GetState() != coordinatorv1.LeaderState_LEADER_STATE_STANDBY || status.GetEpoch() != a.epoch {
			a.t.Errorf("the leader of the past says %v, %v; want a standby that knows of epoch %d", status, err, a.epoch)
		}
		a.refuses(old, a.leader.Address(), nobody)
		mend()
		return nil
	}, 0, 1)
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	if _, _, err := a.Removed(ctx, server, incarnation); err != nil {
		a.t.Fatal(err)
	}
	a.ledOn()
}
