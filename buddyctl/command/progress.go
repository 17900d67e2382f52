package command

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// What a progress file says of a server.
const (
	progressBegun = "begun"
	progressDone  = "done"
)

// progress remembers in a file, a line each, how far a walk is with each server.
// It is safe for concurrent use.
type progress struct {
	mu    sync.Mutex
	file  *os.File
	state map[string]string
}

// openProgress reads a file, which need not be there yet. Without a name nothing
// is remembered.
func openProgress(name string) (*progress, error) {
	p := &progress{state: map[string]string{}}
	if name == "" {
		return p, nil
	}
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &usageError{fmt.Errorf("read progress: %w", err)}
	}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	for lines.Scan() {
		state, id, ok := strings.Cut(lines.Text(), " ")
		if !ok || state != progressBegun && state != progressDone {
			return nil, &usageError{fmt.Errorf("read progress: %s has a line %q that is none of a rolling restart", name, lines.Text())}
		}
		p.state[id] = state
	}
	p.file, err = os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, &usageError{fmt.Errorf("open progress: %w", err)}
	}
	return p, nil
}

func (p *progress) is(id, state string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state[id] == state
}

// order puts what was begun first.
func (p *progress) order(id string) int {
	if p.is(id, progressBegun) {
		return 0
	}
	return 1
}

func (p *progress) add(id, state string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state[id] = state
	if p.file == nil {
		return nil
	}
	if _, err := fmt.Fprintln(p.file, state, id); err != nil {
		return fmt.Errorf("write progress: %w", err)
	}
	return nil
}

func (p *progress) close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}
