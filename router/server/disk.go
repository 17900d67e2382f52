package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/buddyring/buddyring/internal/statedir"
)

const (
	stateFile    = "router.view"
	previousFile = "router.view.prev"
)

// How often the disk is written.
const (
	// saveAfter is how long a change waits for the disk: its clients are told first.
	saveAfter = 50 * time.Millisecond
	// saveGap is the least time between two writes, so that many changes are one.
	saveGap = 500 * time.Millisecond
	// saveRefresh is how often the file is written for the sake of its age alone.
	saveRefresh = time.Minute
	// saveRetry is when a write that failed is tried again.
	saveRetry = 2 * time.Second
)

// disk keeps the views over a restart. Nobody who serves clients waits for it.
type disk struct {
	dir     *statedir.Dir
	pools   *pools
	dirty   signal
	metrics *metrics
	log     *slog.Logger
}

// open takes the directory for this router. Only another router that has it is a
// reason not to serve: a disk that cannot be written is tried again at each
// write.
func (d *disk) open(ctx context.Context) error {
	err := d.dir.Lock()
	if errors.Is(err, statedir.ErrInUse) {
		return fmt.Errorf("%w; give each router a --state-dir of its own", err)
	}
	if err != nil {
		d.log.WarnContext(ctx, "state directory not usable, serving without", "error", err)
	}
	return nil
}

// load returns the newest state that is whole: the last one written, or the one
// before. There may be none.
func (d *disk) load(ctx context.Context) (state, bool) {
	for _, name := range []string{stateFile, previousFile} {
		path := d.dir.Path(name)
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var s state
		if err == nil {
			s, err = decodeState(data)
		}
		if err == nil {
			return s, true
		}
		d.log.WarnContext(ctx, "state file not usable", "file", path, "error", err)
	}
	return state{}, false
}

// run writes the views whenever they have changed, and once more at the end. A
// disk that cannot be written costs nothing but a warning and another attempt.
func (d *disk) run(ctx context.Context) {
	wait := saveRefresh
	for d.await(ctx, wait) {
		sleep(ctx, saveAfter)
		wait = saveRefresh
		if !d.saved(ctx) {
			wait = saveRetry
		}
		sleep(ctx, saveGap)
	}
	d.saved(context.WithoutCancel(ctx))
}

// await returns when there is something to write, or false when ctx ends.
func (d *disk) await(ctx context.Context, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-d.dirty:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

func (d *disk) saved(ctx context.Context) bool {
	err := d.save()
	if err != nil {
		d.log.WarnContext(ctx, "views not written to disk, serving on", "file", d.dir.Path(stateFile), "error", err)
	}
	return err == nil
}

// save writes all views, if there is any.
func (d *disk) save() error {
	at := d.pools.standing()
	if len(at.pools) == 0 && at.storeID == "" {
		return nil
	}
	s := state{storeID: at.storeID}
	for _, e := range at.pools {
		s.pools = append(s.pools, savedPool{view: e.view, confirmed: e.contact.at()})
	}
	start := time.Now()
	err := d.write(s)
	d.metrics.stateWriteTime.Observe(time.Since(start).Seconds())
	if err != nil {
		d.metrics.stateWrites.WithLabelValues("error").Inc()
		return err
	}
	d.metrics.stateWrites.WithLabelValues("ok").Inc()
	d.metrics.stateWritten.SetToCurrentTime()
	return nil
}

// write replaces the file and keeps the one before.
func (d *disk) write(s state) error {
	data, err := encodeState(s)
	if err != nil {
		return err
	}
	return d.dir.Replace(stateFile, data, previousFile)
}
