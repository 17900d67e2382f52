package demo

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeHosts are hosts whose agents all die by leaving, but for one.
type fakeHosts struct {
	killed   string
	rebooted map[string]time.Duration
	began    time.Time
}

func (f *fakeHosts) HasLeft(d death) bool { return d.host != "" && d.host != f.killed }

func (f *fakeHosts) Reboot(name string) error {
	f.rebooted[name] = time.Since(f.began)
	return nil
}

func TestServingRebootsHostsWhoseServersHaveLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told bytes.Buffer
		r := &run{page: &page{w: &told}, deaths: make(chan death, deathsBacklog)}
		h := &fakeHosts{killed: "web-3", rebooted: map[string]time.Duration{}, began: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.stay(ctx, h) }()

		r.deaths <- death{"web-1", errors.New("web-1 ended")}
		time.Sleep(time.Second)
		r.deaths <- death{"web-2", errors.New("web-2 ended")}
		r.deaths <- death{"web-3", errors.New("the agent of web-3 ended: killed")}
		r.deaths <- death{"", errors.New("the router ended")}
		time.Sleep(time.Minute)
		r.deaths <- death{"web-4", errors.New("web-4 ended")}
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if len(h.rebooted) != 2 || h.rebooted["web-1"] != downtime || h.rebooted["web-2"] != time.Second+downtime {
			t.Errorf("rebooted: %v", h.rebooted)
		}
		for _, want := range []string{"web-1 has left", "web-3 ended: killed", "the router ended"} {
			if !strings.Contains(told.String(), want) {
				t.Errorf("not told: %q in\n%s", want, &told)
			}
		}
	})
}
