package client

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/statedir"
)

const (
	// saveGap is the least time between two writes, so that many changes are one.
	saveGap = time.Second
	// saveRetry is when a write that failed is tried again.
	saveRetry = 10 * time.Second
)

// disk keeps the view of a pool over a restart. No pick waits for it.
type disk struct {
	dir  *statedir.Dir
	pool member.Pool
	// dirty is set when there is something to write.
	dirty signal
	log   *slog.Logger
}

func newDisk(path string, pool member.Pool, log *slog.Logger) *disk {
	return &disk{dir: statedir.New(path, "client-"+string(pool)), pool: pool, dirty: newSignal(), log: log}
}

func (d *disk) file() string     { return "client-" + string(d.pool) + ".view" }
func (d *disk) previous() string { return d.file() + ".prev" }

// load returns the newest view that is whole: the last one written, or the one
// before. There may be none.
func (d *disk) load() (saved, bool) {
	for _, name := range []string{d.file(), d.previous()} {
		data, err := os.ReadFile(d.dir.Path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var s saved
		if err == nil {
			s, err = decode(d.pool, data)
		}
		if err == nil {
			return s, true
		}
		d.log.Warn("view file not usable", "file", d.dir.Path(name), "error", err)
	}
	return saved{}, false
}

// run writes what is current whenever that has changed, and once more at the end.
func (d *disk) run(ctx context.Context, current func() (saved, bool)) {
	for ctx.Err() == nil {
		select {
		case <-d.dirty:
			gap := saveGap
			if !d.saved(ctx, current) {
				gap = saveRetry
				d.dirty.set()
			}
			sleep(ctx, gap)
		case <-ctx.Done():
		}
	}
	d.saved(context.WithoutCancel(ctx), current)
	if err := d.dir.Close(); err != nil {
		d.log.WarnContext(ctx, "state directory not closed", "error", err)
	}
}

// saved writes the view, and reports whether there is nothing left to do. While
// another program has the directory, that one keeps the view for all.
func (d *disk) saved(ctx context.Context, current func() (saved, bool)) bool {
	s, ok := current()
	if !ok {
		return true
	}
	data, err := encode(s)
	if err == nil {
		err = d.dir.Replace(d.file(), data, d.previous())
	}
	if err != nil && !errors.Is(err, statedir.ErrInUse) {
		d.log.WarnContext(ctx, "view not written to disk, going on", "file", d.dir.Path(d.file()), "error", err)
	}
	return err == nil
}
