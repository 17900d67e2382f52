package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// superseded is how long after an outage a leader that has not renewed its
// lease would have been succeeded.
const superseded = 5 * time.Second

// outage takes the database away, stopped or killed in turns, and gives it back:
// the leader, which is well, must lead on in its epoch.
func (r *run) outage(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if r.outages++; r.outages%2 == 1 {
		err = r.site.servers.Pause()
		sleep(ctx, r.cfg.StopFor)
		err = errors.Join(err, r.site.servers.Continue())
	} else {
		err = r.site.servers.Crash()
		sleep(ctx, r.cfg.StopFor)
		err = errors.Join(err, r.site.servers.Recover())
	}
	if err := errors.Join(err, r.site.whole(ctx)); err != nil {
		return err
	}
	r.say("the database was away for %s", time.Since(begin).Round(time.Second))
	return r.leadsOn(ctx, c, epoch, "an outage of "+time.Since(begin).Round(time.Second).String())
}

// leadsOn waits until whoever would take over has had the time to, and wants the
// same leader in the same epoch as before something happened.
func (r *run) leadsOn(ctx context.Context, before *coordinator, epoch uint64, what string) error {
	sleep(ctx, superseded)
	now, later, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	if now != before || later != epoch {
		r.report.Superseded = append(r.report.Superseded, fmt.Sprintf("%s led in epoch %d before %s, %s in epoch %d after it",
			before.id, epoch, what, now.id, later))
	}
	return nil
}
