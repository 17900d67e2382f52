//go:build lab && linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// smallDisk mounts a file system of that size; it ends with the mount namespace
// at the latest.
func smallDisk(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fill fills a disk to the last byte.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, block := range []int{64 << 10, 1} {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, block))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFullDiskUnderTheTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	smallDisk(t, disk, "8m")
	w := &world{t: t, dir: dir, agents: map[string]*lab.Agent{}, servers: names(3)}
	w.Site = newSite(t, lab.Config{
		Bin: os.Getenv(binEnv), Dir: dir, Hosts: w.servers, Routers: 1, Store: "sqlite:" + filepath.Join(disk, "buddyring.db"),
	})
	for _, server := range w.servers {
		w.start(lab.AgentConfig{Server: server})
	}
	w.settled()
	w.await("the router's first view", w.routed)
	before := w.ring()
	free := fill(t, disk)

	// Some changes may still fit into what SQLite has; then they fail, honestly.
	o := &operator{}
	var refused error
	for i := 0; refused == nil; i++ {
		if i == 10_000 {
			t.Fatal("a full disk refuses nothing")
		}
		if refused = w.intend(t.Context(), i); refused == nil {
			o.acked = append(o.acked, reason(i))
		}
	}
	if !errors.Is(refused, member.ErrUnavailable) {
		t.Errorf("refused with %v, want %v", refused, member.ErrUnavailable)
	}
	w.await("the alarm", func(ctx context.Context) error { return w.alarmed(ctx, "STORE_FAILING", "") })
	status, err := w.Admin().GetStatus(t.Context(), &coordinatorv1.GetStatusRequest{})
	if err != nil || status.GetStoreState() != coordinatorv1.StoreState_STORE_STATE_FAILING {
		t.Errorf("status: store is %v (%s), %v", status.GetStoreState(), status.GetStoreError(), err)
	}
	w.watchRouter(2 * time.Second)

	free()
	w.await("recovery without a restart", func(ctx context.Context) error { return w.intend(ctx, 1_000_000) })
	o.acked = append(o.acked, reason(1_000_000))
	events, err := w.intents()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.check(events); err != nil {
		t.Error(err)
	}
	w.await("the alarm's edges in the history", func(ctx context.Context) error {
		page, err := w.Admin().ListEvents(ctx, &coordinatorv1.ListEventsRequest{
			Pool: lab.Pool, Kinds: []string{"alarm_raised", "alarm_cleared"}, PageSize: 1000,
		})
		if err != nil {
			return err
		}
		edges := map[string]bool{}
		for _, e := range page.GetEvents() {
			edges[e.GetKind()] = edges[e.GetKind()] || strings.HasPrefix(e.GetText(), "STORE_FAILING")
		}
		if !edges["alarm_raised"] || !edges["alarm_cleared"] {
			return fmt.Errorf("the history has %v", page.GetEvents())
		}
		return nil
	})
	w.settled()
	sameRing(t, before, w.ring())
	// What is on disk is whole: a new coordinator finds the same.
	w.kill()
	w.settled()
	sameRing(t, before, w.ring())
	w.nobodyRemoved()
}

// intend sets the i'th intent.
func (w *world) intend(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := w.Admin().SetIntent(ctx, &coordinatorv1.SetIntentRequest{
		Pool: lab.Pool, ServerId: "planned-" + strconv.Itoa(i%20), Wish: coordinatorv1.Wish_WISH_MAINTENANCE, Reason: reason(i),
	})
	return err
}

func TestFullDiskUnderAnAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0, names(3)...)
	w.servers = names(2)
	disk := filepath.Join(w.dir, "disk")
	smallDisk(t, disk, "128k")
	w.start(lab.AgentConfig{Server: "web-1", Dir: disk})
	w.start(lab.AgentConfig{Server: "web-2"})
	w.settled()
	before := contents(t, disk)
	free := fill(t, disk)

	// The third server gives the first one two buddies instead of one, which it
	// cannot write down now. It watches them all the same.
	w.start(lab.AgentConfig{Server: "web-3"})
	w.await("the third server", func(ctx context.Context) error {
		rows, err := w.Servers(ctx)
		if err == nil && len(rows) != 3 {
			err = fmt.Errorf("%d members", len(rows))
		}
		return err
	})
	w.await("the alarm", func(ctx context.Context) error { return w.alarmed(ctx, "AGENT_STATE_UNSAVED", "web-1") })
	acknowledged := func(ctx context.Context) error {
		check, err := w.Admin().CheckRing(ctx, &coordinatorv1.CheckRingRequest{Pool: lab.Pool})
		if err == nil && check.GetAcknowledged() != 2 {
			err = fmt.Errorf("%d agents have acknowledged; want the two that can write", check.GetAcknowledged())
		}
		return err
	}
	w.await("the acknowledgement of those that can write", acknowledged)
	w.watch(3 * time.Second)
	if err := acknowledged(t.Context()); err != nil {
		t.Error(err)
	}
	for name, text := range before {
		if got := contents(t, disk)[name]; got != text {
			t.Errorf("%s was %q, is %q", name, text, got)
		}
	}
	free()
	w.servers = names(3)
	w.settled()
	w.await("the end of the alarm", func(ctx context.Context) error {
		if w.alarmed(ctx, "AGENT_STATE_UNSAVED", "web-1") == nil {
			return errors.New("it is still there")
		}
		return nil
	})
	w.nobodyRemoved()
}

// alarmed says what is wrong when there is no such alarm.
func (w *world) alarmed(ctx context.Context, name, subject string) error {
	answer, err := w.Admin().ListAlarms(ctx, &coordinatorv1.ListAlarmsRequest{})
	if err != nil {
		return err
	}
	for _, a := range answer.GetAlarms() {
		if a.GetName() == name && a.GetSubject() == subject {
			return nil
		}
	}
	return fmt.Errorf("the alarms are %v", answer.GetAlarms())
}

// contents are the files of a folder, by name.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "filler" || e.IsDir() {
			continue
		}
		file, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(file)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

// The coordinator's own directory has only the name of its run: without room for
// it, its next start has to wait for the lease, and that is all.
func TestFullDiskUnderTheCoordinator(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk := filepath.Join(dir, "coordinator")
	smallDisk(t, disk, "64k")
	w := &world{t: t, dir: dir, agents: map[string]*lab.Agent{}, servers: names(3)}
	w.Site = newSite(t, lab.Config{
		Bin: os.Getenv(binEnv), Dir: dir, Hosts: w.servers, Routers: 1, Store: "sqlite:" + filepath.Join(dir, "table.db"),
	})
	for _, server := range w.servers {
		w.start(lab.AgentConfig{Server: server})
	}
	w.settled()
	before := w.ring()
	run := contents(t, disk)["coordinator.instance"]
	free := fill(t, disk)
	for range 2 {
		w.kill()
		w.settled()
		sameRing(t, before, w.ring())
		if got := contents(t, disk)["coordinator.instance"]; got != run {
			t.Errorf("the name of the run is %q after %q, on a full disk", got, run)
		}
	}
	free()
	w.kill()
	w.settled()
	if got := contents(t, disk)["coordinator.instance"]; got == run || got == "" {
		t.Errorf("the name of the run is %q with room for another", got)
	}
	w.nobodyRemoved()
}
