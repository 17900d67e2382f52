package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const stateName = "agent.json"

// Disk keeps the State of one agent in a directory that no other agent uses. It
// is not safe for concurrent use.
type Disk struct {
	dir *os.File
}

// OpenDisk makes the directory where it is missing and locks it; the lock ends
// with Close or the process.
func OpenDisk(path string) (*Disk, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	if err := lock(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("lock state directory %s (does another agent use it?): %w", path, err), dir.Close())
	}
	return &Disk{dir: dir}, nil
}

// Close gives the directory back.
func (d *Disk) Close() error { return d.dir.Close() }

// Path is where the state is.
func (d *Disk) Path() string { return filepath.Join(d.dir.Name(), stateName) }

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
// returns nil, the state survives a crash of the host.
func (d *Disk) Save(s State) error {
	data, err := encodeState(s)
	if err != nil {
		return err
	}
	draft := d.Path() + ".new"
	if err := writeSynced(draft, data); err != nil {
		// Half a draft on a full disk is no use to anybody.
		return errors.Join(fmt.Errorf("write state: %w", err), removeIfThere(draft))
	}
	if err := os.Rename(draft, d.Path()); err != nil {
		return errors.Join(fmt.Errorf("replace state: %w", err), removeIfThere(draft))
	}
	if err := d.dir.Sync(); err != nil {
		return fmt.Errorf("sync state directory: %w", err)
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
