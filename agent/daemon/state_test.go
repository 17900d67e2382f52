package daemon

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/statedir"
)

func exampleState() State {
	return State{
		Pool: "default", ID: "web-1.example", Incarnation: 12, BootID: "8e1f", Leaving: true, StoreID: "b6f1", Epoch: 4,
		Assignment: Assignment{
			Revision: 20, Seq: 3, Period: 500 * time.Millisecond,
			Subjects: []Subject{
				{Role: "first_buddy", Subject: detector.Subject{
					Key:         detector.Key{ID: "web-2", Incarnation: 13},
					Addresses:   []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")},
					PhaseOffset: 123 * time.Millisecond,
				}},
				{Role: "second_buddy", Subject: detector.Subject{
					Key: detector.Key{ID: "web-3", Incarnation: 14}, Probe: member.Probe{Method: member.ProbeTCP, Port: 80},
				}},
			},
		},
		Coordinators: []string{"coordinator-1.example:7400", "192.0.2.100:7400"},
	}
}

func compareStates() cmp.Options {
	return cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()}
}

func encoded(t testing.TB, s State) []byte {
	t.Helper()
	data, err := encodeState(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestStateSurvivesItsFile(t *testing.T) {
	t.Parallel()
	got, err := decodeState(encoded(t, exampleState()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exampleState(), got, compareStates()); diff != "" {
		t.Errorf("(-saved +loaded):\n%s", diff)
	}
}

// TestDamageIsNoticed: no cut and no changed bit yields a state, unless what it
// changed is white space.
func TestDamageIsNoticed(t *testing.T) {
	t.Parallel()
	data := encoded(t, exampleState())
	for n := range len(data) - 1 {
		if _, err := decodeState(data[:n]); err == nil && n < len(data)-1 {
			t.Fatalf("cut after %d of %d bytes: no error", n, len(data))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		damaged := append([]byte(nil), data...)
		damaged[rapid.IntRange(0, len(data)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		s, err := decodeState(damaged)
		if err != nil {
			return
		}
		if diff := cmp.Diff(exampleState(), s, compareStates()); diff != "" {
			t.Fatalf("another state (-saved +loaded):\n%s", diff)
		}
	})
}

func TestStateOfANewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := decodeState([]byte(`{"format":2,"sha256":"","state":{}}`)); !errors.Is(err, member.ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

// FuzzDecodeState: whatever the bytes, there is an error or a state that
// survives its file.
func FuzzDecodeState(f *testing.F) {
	f.Add(encoded(f, exampleState()))
	f.Add(encoded(f, State{Pool: "default", ID: "a"}))
	f.Add([]byte(`{"format":1,"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","state":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data)
		if err != nil {
			return
		}
		again, err := decodeState(encoded(t, s))
		if err != nil {
			t.Fatalf("decode again: %v", err)
		}
		if diff := cmp.Diff(s, again, compareStates()); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
	})
}

// FuzzParseState goes past the checksum, which fuzzing will not guess.
func FuzzParseState(f *testing.F) {
	f.Add("default", "web-1", "coordinator:7400", "192.0.2.1", "icmp", int64(5e8))
	f.Add("", "A", "x", "224.0.0.1", "tcp://:0", int64(-1))
	f.Fuzz(func(t *testing.T, pool, id, coordinator, address, probe string, ns int64) {
		a, _ := netip.ParseAddr(address)
		s, err := parseState(stateJSON{
			Pool: pool, ServerID: id, ProbeInterval: time.Duration(ns), Coordinators: []string{coordinator},
			Subjects: []subjectJSON{{ServerID: id, ProbeAddresses: []netip.Addr{a}, Probe: probe, PhaseOffset: time.Duration(ns)}},
		})
		if err != nil {
			return
		}
		if again, err := decodeState(encoded(t, s)); err != nil || !cmp.Equal(s, again, compareStates()) {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

func openDisk(t *testing.T, path string) *Disk {
	t.Helper()
	d, err := OpenDisk(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b")
	d := openDisk(t, path)
	if s, err := d.Load(); err != nil || s.ID != "" {
		t.Errorf("new directory: %+v, %v", s, err)
	}
	for range 2 {
		if err := d.Save(exampleState()); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := d.Load(); err != nil || s.ID != exampleState().ID {
		t.Errorf("loaded %+v, %v", s, err)
	}
	info, err := os.Stat(d.Path())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 2 || entries[0].Name() != "agent.json" || entries[1].Name() != "agent.lock" {
		t.Errorf("directory has %v, %v", entries, err)
	}
}

func TestDiskIsOneAgents(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	d := openDisk(t, path)
	if _, err := OpenDisk(path); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("a second agent: %v, want %v", err, statedir.ErrInUse)
	}
	d.Close()
	openDisk(t, path)
}

func TestSaveThatFailsLeavesTheOldState(t *testing.T) {
	t.Parallel()
	d := openDisk(t, t.TempDir())
	if err := d.Save(exampleState()); err != nil {
		t.Fatal(err)
	}
	// A directory in the draft's place makes writing fail for root, too.
	draft := d.Path() + ".new"
	if err := os.MkdirAll(filepath.Join(draft, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(State{Pool: "default", ID: "other", Incarnation: 1}); err == nil {
		t.Error("no error")
	}
	if s, err := d.Load(); err != nil || s.ID != exampleState().ID {
		t.Errorf("loaded %+v, %v", s, err)
	}
	if err := os.RemoveAll(draft); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(exampleState()); err != nil {
		t.Errorf("after the trouble: %v", err)
	}
}

// TestEndOfAnIncarnationIsSavedSomehow: what cannot be replaced is removed, so that
// nobody takes an old incarnation for the present one.
func TestEndOfAnIncarnationIsSavedSomehow(t *testing.T) {
	t.Parallel()
	d := openDisk(t, t.TempDir())
	if err := d.Save(exampleState()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(d.Path()+".new", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	over := exampleState()
	over.Incarnation = 0
	for range 2 {
		if err := d.Save(over); err == nil {
			t.Error("no error")
		}
		if s, err := d.Load(); err != nil || s.Incarnation != 0 {
			t.Errorf("loaded %+v, %v", s, err)
		}
	}
}

func TestStateDirectoryThatIsAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var pathErr *fs.PathError
	if _, err := OpenDisk(path); !errors.As(err, &pathErr) {
		t.Errorf("error %v", err)
	}
}
