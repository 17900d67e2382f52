package fleet_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// alarms are the names of the active ones.
func (f *fleet) alarms() []string {
	f.t.Helper()
	res, err := f.admin.ListAlarms(f.t.Context(), &coordinatorv1.ListAlarmsRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	var names []string
	for _, a := range res.GetAlarms() {
		names = append(names, a.GetName())
	}
	return names
}

// routers says of each router whether it is connected.
func (f *fleet) routers() (all []string) {
	f.t.Helper()
	res, err := f.admin.ListRouters(f.t.Context(), &coordinatorv1.ListRoutersRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, r := range res.GetRouters() {
		all = append(all, fmt.Sprintf("%s %t", r.GetRouterId(), r.GetConnected()))
	}
	return all
}

// A router that is stopped says goodbye, is missed by nobody and leaves the list,
// also when the coordinator starts again meanwhile.
func TestRouterSaysGoodbye(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		f.add("web-1", "web-2", "web-3")
		f.settled(20*time.Second, "web-1", "web-2", "web-3")
		f.warm()
		f.stopRouter()
		time.Sleep(5 * time.Minute)
		if got := f.routers(); !slices.Equal(got, []string{"r1 false"}) || len(f.alarms()) != 0 {
			f.t.Errorf("routers %v, alarms %v", got, f.alarms())
		}
		time.Sleep(6 * time.Minute)
		if got := f.routers(); len(got) != 0 {
			f.t.Errorf("long after its goodbye the routers are %v", got)
		}
		f.startRouter()
		f.settled(5*time.Second, "web-1", "web-2", "web-3")
		f.stopRouter()
		time.Sleep(2 * time.Second)
		f.stopCoordinator()
		f.startCoordinator()
		time.Sleep(2 * time.Minute)
		if got := f.alarms(); len(got) != 0 {
			f.t.Errorf("after a restart the alarms are %v", got)
		}
	})
}

// A router that is new gets its snapshot after a hundred others, whose networks take
// only the beginning of theirs. It waits for its turn, and does not ask anew.
func TestRouterWaitsForItsTurn(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 50)
		f.add(all...)
		f.settled(30*time.Second, all...)
		long := map[string]string{"note": strings.Repeat("x", 4000)}
		for _, id := range all { // more than a stream takes without being read
			_, err := f.admin.UpdateServer(f.t.Context(), &coordinatorv1.UpdateServerRequest{
				ServerId: id, Spec: &coordinatorv1.ServerSpec{Labels: long}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
			})
			if err != nil {
				f.t.Fatal(err)
			}
		}
		f.stopRouter()
		for n := range 100 {
			f.subscribeLazily(fmt.Sprint("lazy-", n))
		}
		time.Sleep(100 * time.Millisecond)
		before := f.network.dials(routerAddress)
		if err := os.RemoveAll(filepath.Join(f.dir, "router")); err != nil { // it knows nothing
			f.t.Fatal(err)
		}
		f.startRouter()
		took := f.until(20*time.Second, func() error {
			if active, _ := f.routed(); len(active) != len(all) {
				return fmt.Errorf("routed to %v", active)
			}
			return nil
		})
		if took < 4*time.Second {
			f.t.Errorf("it did not wait: %s", took)
		}
		if n := f.network.dials(routerAddress) - before; n != 1 {
			f.t.Errorf("the router subscribed %d times", n)
		}
	})
}

// subscribeLazily opens a subscription and reads nothing.
func (f *fleet) subscribeLazily(id string) {
	f.t.Helper()
	conn := f.dial(func(ctx context.Context) (net.Conn, error) {
		return f.network.connect(ctx, netip.MustParseAddr("10.255.255.3"))
	})
	stream, err := coordinatorv1.NewMembershipServiceClient(conn).Subscribe(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	hello := &coordinatorv1.SubscribeHello{RouterId: id}
	if err := stream.Send(&coordinatorv1.SubscribeRequest{Message: &coordinatorv1.SubscribeRequest_Hello{Hello: hello}}); err != nil {
		f.t.Fatal(err)
	}
}

// copyDatabase copies the file of a coordinator that is stopped.
func (f *fleet) copyDatabase(from, to string) {
	f.t.Helper()
	in, err := os.Open(filepath.Join(f.dir, from))
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(filepath.Join(f.dir, to))
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		f.t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		f.t.Fatal(err)
	}
}

// A backup is restored without a new identity, and changes until its revision is
// beyond the one that the router had. The router follows it, not a mixture.
func TestRestoredBackup(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		old := []string{"web-1", "web-2", "web-3"}
		f.add(old...)
		f.settled(20*time.Second, old...)
		f.warm()
		f.stopCoordinator()
		f.copyDatabase("coordinator.db", "backup.db")
		f.startCoordinator()
		f.warm()
		weigh := func(id string, weight uint32) {
			f.t.Helper()
			_, err := f.admin.UpdateServer(f.t.Context(), &coordinatorv1.UpdateServerRequest{
				ServerId: id, Spec: &coordinatorv1.ServerSpec{Weight: &weight}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"weight"}},
			})
			if err != nil {
				f.t.Fatal(err)
			}
		}
		for range 2 {
			weigh("web-1", 0)
			weigh("web-1", 50)
		}
		weigh("web-1", 0)
		f.settled(5*time.Second, "web-2", "web-3")

		f.network.set(func(n *network) { n.down[routerAddress] = true })
		f.stopCoordinator()
		f.copyDatabase("backup.db", "coordinator.db")
		f.startCoordinator()
		for n := range uint32(8) {
			weigh("web-2", 10+n)
		}
		f.network.set(func(n *network) { delete(n.down, routerAddress) })
		f.settled(time.Minute, old...)
		f.warm()
		f.consistent()
		if got := f.alarms(); !slices.Equal(got, []string{"HISTORY_WENT_BACK"}) {
			f.t.Errorf("alarms: %v", got)
		}
		if got := f.removals(); len(got) != 0 {
			f.t.Errorf("removals: %v", got)
		}
	})
}
