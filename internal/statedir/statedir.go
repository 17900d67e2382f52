// Package statedir is the directory in which a process keeps what it needs after
// a restart. It is locked against a second process of the same kind, and its
// files are replaced whole or not at all.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrInUse says that another process has the directory.
var ErrInUse = errors.New("another process uses it")

// Dir is a state directory. It is not safe for concurrent use.
type Dir struct {
	path, program string
	// held is the locked file, nil while there is none.
	held *os.File
}

// New returns the directory at path for a kind of program, such as "agent".
// Programs of different kinds may share a directory. Nothing is touched yet.
func New(path, program string) *Dir { return &Dir{path: path, program: program} }

// Lock makes the directory where it is missing and takes it for this process,
// until Close or the end of the process. It fails with ErrInUse while another
// process of the kind has it. Once it has succeeded it does nothing.
func (d *Dir) Lock() error {
	if d.held != nil {
		return nil
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	// Nobody removes the file: whoever did could lock another one than the rest.
	f, err := os.OpenFile(d.Path(d.program+".lock"), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock state directory: %w", err)
	}
	if err := lock(f); err != nil {
		return errors.Join(fmt.Errorf("lock state directory %s for the %s: %w", d.path, d.program, err), f.Close())
	}
	d.held = f
	return nil
}

// Close gives the directory back.
func (d *Dir) Close() error {
	if d.held == nil {
		return nil
	}
	f := d.held
	d.held = nil
	return f.Close()
}

// Path is where a file of the directory is.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// Replace replaces a file, or leaves it as it was and says why. When it returns
// nil, the new content survives a crash of the host. The file before it stays
// under the name of keep, unless that is empty; there is a whole one under
// either name at every moment. A directory that is not locked yet is locked
// first.
func (d *Dir) Replace(name string, data []byte, keep string) error {
	if err := d.Lock(); err != nil {
		return err
	}
	draft := d.Path(name + ".new")
	if err := writeSynced(draft, data); err != nil {
		// Half a draft on a full disk is no use to anybody.
		return errors.Join(fmt.Errorf("write state: %w", err), removeIfThere(draft))
	}
	if keep != "" {
		if err := os.Rename(d.Path(name), d.Path(keep)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("keep previous state: %w", err), removeIfThere(draft))
		}
	}
	if err := os.Rename(draft, d.Path(name)); err != nil {
		return errors.Join(fmt.Errorf("replace state: %w", err), removeIfThere(draft))
	}
	return d.sync()
}

// sync makes renames durable.
func (d *Dir) sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("sync state directory: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
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
