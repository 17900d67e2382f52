//go:build linux && amd64

package wallclock_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/leak"
	"github.com/buddyring/buddyring/internal/wallclock"
)

// tell makes this program one that tells the time at each line of its input, on
// its wall clock and how long it has run on its monotonic one, in nanoseconds.
const tell = "BUDDYRING_WALLCLOCK_TELL"

func TestMain(m *testing.M) {
	if os.Getenv(tell) == "" {
		leak.Main(m)
		return
	}
	begin := time.Now()
	go func() {
		for !time.Now().IsZero() { // a thread that always asks
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		now := time.Now()
		fmt.Println(now.Round(0).UnixNano(), now.Sub(begin).Nanoseconds())
	}
}

// program is one that tells the time.
type program struct {
	pid int
	ask func() (wall time.Time, ran time.Duration)
}

// run runs a program that answers each line of its input by a line of two numbers.
func run(t *testing.T, cmd *exec.Cmd) program {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	out := bufio.NewReader(pipe)
	return program{cmd.Process.Pid, func() (time.Time, time.Duration) {
		t.Helper()
		if _, err := fmt.Fprintln(in); err != nil {
			t.Fatal(err)
		}
		var wall, ran int64
		if _, err := fmt.Fscanln(out, &wall, &ran); err != nil {
			t.Fatal(err)
		}
		return time.Unix(0, wall), time.Duration(ran)
	}}
}

func TestClock(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), tell+"=1")
	p := run(t, cmd)
	begin := time.Now()
	_, before := p.ask()
	clock, err := wallclock.Of(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	check := func(ahead time.Duration) {
		t.Helper()
		for range 100 {
			low := time.Now()
			wall, ran := p.ask()
			high := time.Now()
			if wall.Before(low.Add(ahead-time.Second)) || wall.After(high.Add(ahead+time.Second)) {
				t.Fatalf("its clock is at %s, want %s ahead of %s", wall, ahead, low)
			}
			if ran < before || ran-before > high.Sub(begin) {
				t.Fatalf("its monotonic clock has run from %s to %s in %s", before, ran, high.Sub(begin))
			}
		}
	}
	check(0)
	for _, ahead := range []time.Duration{10 * time.Minute, -10 * time.Minute, 24 * time.Hour, 0} {
		if err := clock.Set(ahead); err != nil {
			t.Fatal(err)
		}
		check(ahead)
	}
	// This process's own is not touched.
	if d := time.Since(begin) - time.Now().Round(0).Sub(begin.Round(0)); d.Abs() > time.Second {
		t.Errorf("the host's clock has moved by %s", d)
	}
}

// TestClockOfC is of a program that asks by the C library, in its two other ways.
func TestClockOfC(t *testing.T) {
	t.Parallel()
	p := run(t, exec.CommandContext(t.Context(), "bash", "-c", `while read -r; do echo "${EPOCHREALTIME/./}000 ${EPOCHSECONDS}000000000"; done`))
	clock, err := wallclock.Of(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{0, 10 * time.Minute, -10 * time.Minute} {
		if err := clock.Set(ahead); err != nil {
			t.Fatal(err)
		}
		low := time.Now().Add(ahead - 2*time.Second)
		timeofday, seconds := p.ask()
		high := time.Now().Add(ahead + 2*time.Second)
		for call, at := range map[string]time.Time{"gettimeofday": timeofday, "time": time.Unix(0, int64(seconds))} {
			if at.Before(low) || at.After(high) {
				t.Errorf("%s says %s, want %s ahead of %s", call, at, ahead, time.Now())
			}
		}
	}
}

func TestNobody(t *testing.T) {
	t.Parallel()
	if _, err := wallclock.Of(1 << 30); err == nil {
		t.Error("the clock of a process that does not exist is taken over")
	}
}
