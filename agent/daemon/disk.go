package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/buddyring/buddyring/internal/statedir"
)

const stateName = "agent.json"

// Disk keeps the State of one agent in a directory that no other agent uses. Only
// Load is safe for concurrent use.
type Disk struct {
	dir *statedir.Dir
}

// OpenDisk makes the directory where it is missing and locks it; the lock ends
// with Close or the process. A full disk does not keep an agent from starting:
// without room for the lock, nothing is written before there is.
func OpenDisk(path string) (*Disk, error) {
	d := &Disk{dir: statedir.New(path, "agent")}
	err := d.dir.Lock()
	if _, missing := os.Stat(path); missing == nil && errors.Is(err, syscall.ENOSPC) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Close gives the directory back.
func (d *Disk) Close() error { return d.dir.Close() }

// Path is where the state is.
func (d *Disk) Path() string { return d.dir.Path(stateName) }

// Load returns what was saved last, or a zero State where nothing was.
func (d *Disk) Load() (State, error) {
	data, err := os.ReadFile(d.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("read state: %w", err)
	}
	return decodeState(data)
}

// Save replaces what was saved, or leaves it as it was and says why. When it
// returns nil, the state survives a crash of the host. An incarnation that is
// over must not be there at the next start: what cannot be replaced by a state
// without one is removed, for which a full disk has room.
func (d *Disk) Save(s State) error {
	data, err := encodeState(s)
	if err != nil {
		return err
	}
	err = d.dir.Replace(stateName, data, "")
	if err == nil || s.Incarnation != 0 || errors.Is(err, statedir.ErrInUse) {
		return err
	}
	if gone := os.Remove(d.Path()); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		return errors.Join(err, gone)
	}
	return err
}
