package client_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/buddyring/buddyring/client"
)

// stored lets a program see two views, and ends it. Both are on disk then.
func stored(t *testing.T, w *world) client.Config {
	t.Helper()
	cfg := w.config(first)
	cfg.StateDir = w.dir
	p := w.open(cfg)
	r := w.router(first)
	s := r.session()
	s.snapshot(1, 5, "a", "b")
	time.Sleep(2 * time.Second)
	s.snapshot(1, 6, "a*50", "suspect b", "service_down c", "held_back d")
	time.Sleep(2 * time.Second)
	r.kill()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

const (
	viewFile     = "client-web.view"
	previousFile = "client-web.view.prev"
)

func TestDisk_ProgramStartsWithoutRouters(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		cfg := stored(t, w)
		time.Sleep(time.Hour)
		p := w.open(cfg)
		if got := shown(p); got != "a, suspect b, service_down c, held_back d" {
			t.Errorf("the pool is %q", got)
		}
		v := p.View()
		if v.StoreID != "store" || v.Epoch != 1 || v.Revision != 6 || v.Servers[0].Weight != 50 || v.Servers[0].Endpoints[1].Address != "a.test:81" {
			t.Errorf("the view is %+v", v)
		}
		if age := time.Since(p.Status().Confirmed); age < time.Hour || age > time.Hour+10*time.Second {
			t.Errorf("the view is %v old", age)
		}
		// Its first router may have another history, and is believed.
		s := w.router(first).session()
		s.store = "backup"
		s.snapshot(1, 2, "z")
		expect(t, p, "z")
	})
}

// While all routers are out of touch, the word that was confirmed last counts: a
// file of another history does not keep a program from its pool.
func TestDisk_OtherHistoryConfirmedLaterIsBelieved(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]string{
		time.Hour:     "z",
		3 * time.Hour: "a, suspect b, service_down c, held_back d",
	} {
		t.Run(age.String(), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				cfg := stored(t, w)
				time.Sleep(2 * time.Hour)
				p := w.open(cfg)
				s := w.router(first).session()
				s.store, s.stale, s.age = "backup", true, age
				s.snapshot(1, 2, "z")
				expect(t, p, want)
			})
		})
	}
}

func TestDisk_RouterBehindTheFileIsNotFollowed(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open(stored(t, w))
		s := w.router(first).session()
		s.stale = true
		s.snapshot(1, 3, "z")
		expect(t, p, "a, suspect b, service_down c, held_back d")
	})
}

func TestDisk_BrokenFileIsNotUsed(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"empty":         func([]byte) []byte { return nil },
		"cut":           func(b []byte) []byte { return b[:len(b)-1] },
		"a bit":         func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"another kind":  func(b []byte) []byte { return bytes.Replace(b, []byte("-client-"), []byte("-router-"), 1) },
		"another month": func(b []byte) []byte { return append(b, ' ') },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				cfg := stored(t, w)
				path := filepath.Join(w.dir, viewFile)
				whole, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, damage(bytes.Clone(whole)), 0o600); err != nil {
					t.Fatal(err)
				}
				p := w.open(cfg)
				if got := shown(p); got != "a, suspect b, service_down c, held_back d" && got != "a, b" {
					t.Errorf("with the file before: %q", got)
				}
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{viewFile, previousFile} {
					if err := os.WriteFile(filepath.Join(w.dir, name), damage(bytes.Clone(whole)), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				p = w.open(cfg)
				if got := shown(p); got != "" {
					t.Errorf("with nothing whole: %q", got)
				}
				w.router(first).session().snapshot(1, 7, "z")
				expect(t, p, "z")
			})
		})
	}
}

func TestDisk_FileOfAnotherPoolIsNotUsed(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		cfg := stored(t, w)
		if err := os.Rename(filepath.Join(w.dir, viewFile), filepath.Join(w.dir, "client-db.view")); err != nil {
			t.Fatal(err)
		}
		cfg.Pool = "db"
		if got := shown(w.open(cfg)); got != "" {
			t.Errorf("the pool is %q", got)
		}
	})
}

func TestDisk_ProgramsShareADirectory(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		cfg := w.config(first)
		cfg.StateDir = w.dir
		r := w.router(first)
		one := w.open(cfg)
		s := r.session()
		s.snapshot(1, 5, "a")
		time.Sleep(2 * time.Second)
		other := w.open(cfg)
		if got := shown(other); got != "a" {
			t.Errorf("the other one starts with %q", got)
		}
		t2 := r.session()
		t2.snapshot(1, 5, "a")
		t2.snapshot(1, 6, "a", "b")
		t2.keep(2*time.Second, 1, 6)
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
		t2.keep(15*time.Second, 1, 6)
		// The first one has given the directory back, and the other has taken over.
		third := w.open(cfg)
		if got := shown(third); got != "a, b" {
			t.Errorf("a third one starts with %q", got)
		}
	})
}

func TestDisk_NoDirectoryIsNoReasonNotToServe(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		path := filepath.Join(w.dir, "file")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := w.config(first)
		cfg.StateDir = path
		p := w.open(cfg)
		s := w.router(first).session()
		s.snapshot(1, 5, "a")
		s.keep(30*time.Second, 1, 5)
		expect(t, p, "a")
	})
}
