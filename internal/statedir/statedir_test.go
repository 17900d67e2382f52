//go:build unix

package statedir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/buddyring/buddyring/internal/statedir"
)

func TestOneProcessOfAKind(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "here")
	first, second, other := statedir.New(path, "router"), statedir.New(path, "router"), statedir.New(path, "agent")
	for range 2 {
		if err := first.Lock(); err != nil {
			t.Fatal(err)
		}
	}
	if err := second.Lock(); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("a second router: %v, want %v", err, statedir.ErrInUse)
	}
	if err := second.Replace("file", []byte("two"), ""); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("a second router writes: %v, want %v", err, statedir.ErrInUse)
	}
	if err := other.Lock(); err != nil {
		t.Errorf("an agent beside the router: %v", err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	if err := second.Replace("file", []byte("two"), ""); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
	if err := errors.Join(second.Close(), other.Close()); err != nil {
		t.Error(err)
	}
}

func TestReplaceKeepsTheFileBefore(t *testing.T) {
	t.Parallel()
	d := statedir.New(t.TempDir(), "router")
	t.Cleanup(func() { _ = d.Close() })
	for _, text := range []string{"one", "two", "three"} {
		if err := d.Replace("file", []byte(text), "file.prev"); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"file": "three", "file.prev": "two"} {
		if got, err := os.ReadFile(d.Path(name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := os.Stat(d.Path("file.new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the draft: %v", err)
	}
}

// What cannot be written leaves the file as it was, and works later.
func TestReplaceFailsWhole(t *testing.T) {
	t.Parallel()
	d := statedir.New(t.TempDir(), "agent")
	t.Cleanup(func() { _ = d.Close() })
	if err := d.Replace("file", []byte("one"), ""); err != nil {
		t.Fatal(err)
	}
	obstacle := d.Path("file.new")
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(obstacle, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Replace("file", []byte("two"), ""); err == nil {
		t.Error("it was written over a directory")
	}
	if got, err := os.ReadFile(d.Path("file")); err != nil || string(got) != "one" {
		t.Errorf("the file is %q, %v", got, err)
	}
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := d.Replace("file", []byte("two"), ""); err != nil {
		t.Errorf("without the obstacle: %v", err)
	}
}

// A directory that cannot be made now may be later.
func TestLockIsTriedAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := statedir.New(path, "router")
	t.Cleanup(func() { _ = d.Close() })
	if err := d.Lock(); err == nil || errors.Is(err, statedir.ErrInUse) {
		t.Errorf("a file in the place of the directory: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.Replace("file", []byte("one"), ""); err != nil {
		t.Error(err)
	}
}
