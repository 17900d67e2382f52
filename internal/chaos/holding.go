package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// holding is what an agent holds: the highest epoch that it has seen, and the
// assignment that it obeys.
type holding struct {
	StoreID  string `json:"store_id"`
	Epoch    uint64 `json:"epoch"`
	Revision uint64 `json:"revision"`
	Seq      uint64 `json:"assignment_seq"`
}

// holdings judges what one agent holds, one time after the other. The zero holdings
// has seen nothing.
type holdings struct {
	last holding
	// obeys says that the assignment is one of the epoch: the epoch comes first.
	obeys bool
}

// see takes what the agent holds now, and says what is wrong with it: it never goes
// back to an assignment of a leader of the past, nor to an older one.
func (h *holdings) see(now holding) (wrong string) {
	before := h.last
	h.last = now
	switch {
	case now.StoreID != before.StoreID:
		h.obeys = false
	case now.Epoch < before.Epoch:
		wrong = fmt.Sprintf("went from epoch %d to epoch %d", before.Epoch, now.Epoch)
	case now.Revision < before.Revision:
		wrong = fmt.Sprintf("took an assignment of revision %d after one of %d, in epoch %d", now.Revision, before.Revision, now.Epoch)
	case now.Epoch > before.Epoch:
		h.obeys = now.Seq != before.Seq
	case now.Seq != before.Seq:
		if h.obeys && now.Seq < before.Seq {
			wrong = fmt.Sprintf("took assignment %d after %d of epoch %d", now.Seq, before.Seq, now.Epoch)
		}
		h.obeys = true
	}
	return wrong
}

// onDisk reads what an agent has on its disk.
func onDisk(path string) (holding, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return holding{}, fmt.Errorf("read state of an agent: %w", err)
	}
	var file struct {
		State holding `json:"state"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return holding{}, fmt.Errorf("read state of an agent: %w", err)
	}
	return file.State, nil
}

// welcomes are the sessions that an agent's log says it has accepted.
func welcomes(log io.Reader) (all []holding, err error) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), `msg="session accepted"`) {
			continue
		}
		var h holding
		for _, field := range []struct {
			name  string
			value *uint64
		}{{"epoch", &h.Epoch}, {"revision", &h.Revision}} {
			_, text, _ := strings.Cut(lines.Text(), " "+field.name+"=")
			text, _, _ = strings.Cut(text, " ")
			if *field.value, err = strconv.ParseUint(text, 10, 64); err != nil {
				return nil, fmt.Errorf("read log of an agent: %s: %w", lines.Text(), err)
			}
		}
		all = append(all, h)
	}
	return all, lines.Err()
}

// realAgent is an agent, and what has been seen of it.
type realAgent struct {
	realProgram

	state string

	mu    sync.Mutex
	holds holdings
	stale []string
}

func newRealAgent(p realProgram) *realAgent {
	return &realAgent{realProgram: p, state: filepath.Join(filepath.Dir(p.program.Log), p.program.Name, "agent.json")}
}

// look looks at what it holds, on its disk. There may be nothing yet.
func (a *realAgent) look() {
	now, err := onDisk(a.state)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if wrong := a.holds.see(now); wrong != "" {
		a.stale = append(a.stale, a.program.Name+" "+wrong)
	}
}

// staleSessions are what it has held that it should not have, on its disk and by its
// log. The disk must have been seen.
func (a *realAgent) staleSessions() (all []string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.holds.last.Epoch == 0 {
		return nil, fmt.Errorf("%s: nobody has seen its state", a.program.Name)
	}
	log, err := os.Open(a.program.Log)
	if err != nil {
		return nil, fmt.Errorf("read log of an agent: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	sessions, err := welcomes(log)
	if err == nil && len(sessions) == 0 {
		err = fmt.Errorf("%s: its log has no session", a.program.Name)
	}
	all = a.stale
	var judged holdings
	for _, s := range sessions {
		if wrong := judged.see(s); wrong != "" {
			all = append(all, a.program.Name+", by its log, "+wrong)
		}
	}
	return all, err
}
