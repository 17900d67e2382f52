package chaos

import (
	"testing"
	"time"
)

// A removal by verdict is right while the host is dead, and wrong otherwise.
func TestMortality(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	m := newMortality()
	if _, dead := m.since("a"); dead || m.excuses("a", at(0)) {
		t.Error("dead before it died")
	}
	m.kill("a", at(10))
	if since, dead := m.since("a"); !dead || !since.Equal(at(10)) || !m.excuses("a", at(500)) {
		t.Error("not dead after it died")
	}
	m.revive("a", at(20))
	if _, dead := m.since("a"); dead {
		t.Error("dead after it came back")
	}
	m.kill("a", at(100))
	for seconds, want := range map[int]bool{9: false, 10: true, 20: true, 22: true, 23: false, 99: false, 100: true, 101: true} {
		if got := m.excuses("a", at(seconds)); got != want {
			t.Errorf("a removal after %d s is right: %v", seconds, got)
		}
	}
	if m.excuses("b", at(15)) || m.count() != 2 {
		t.Errorf("%d deaths", m.count())
	}
}
