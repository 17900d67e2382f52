package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/statedir"
)

// place is where this program keeps the name of its present run. Whoever has it
// locked knows that the run before it has ended.
type place struct {
	dir  *statedir.Dir
	file string
}

// place is the state directory, or where the SQLite file is; nil for a
// coordinator that keeps nothing on this host.
func (p program) place() *place {
	if p.stateDir != "" {
		return &place{statedir.New(p.stateDir, "coordinator"), "coordinator.instance"}
	}
	if path, ok := strings.CutPrefix(p.store.URL, store.KindSQLite+":"); ok {
		name := filepath.Base(path)
		return &place{statedir.New(filepath.Dir(path), name), name + ".instance"}
	}
	return nil
}

// enter takes the place for this process and returns the name of its run and
// that of the run before, "" if that is not known. A disk that takes nothing
// makes only the next start slower.
func (p *place) enter(log *slog.Logger) (instance, predecessor string, err error) {
	if err := p.dir.Lock(); err != nil {
		if errors.Is(err, statedir.ErrInUse) {
			err = fmt.Errorf("another coordinator is running: %w: %w", member.ErrAlreadyExists, err)
		}
		return "", "", err
	}
	before, err := os.ReadFile(p.dir.Path(p.file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("name of the run before not read", "error", err)
	}
	instance = rand.Text()
	if err := p.dir.Replace(p.file, []byte(instance+"\n"), ""); err != nil {
		log.Warn("name of this run not kept", "error", err)
	}
	return instance, strings.TrimSpace(string(before)), nil
}

// leave gives the place back.
func (p *place) leave() error { return p.dir.Close() }
