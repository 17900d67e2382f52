package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/buddyring/buddyring/internal/history"
)

// judgeTime bounds the search for an order of one server's operations.
const judgeTime = 20 * time.Second

// historyFile is the name of the file for a history that breaks a rule.
const historyFile = "history.json"

// judge judges what was recorded.
func (r *run) judge() history.Verdict {
	h := r.history.History()
	v := history.Judge(h, judgeTime)
	r.report.History = judged(h, v)
	for _, f := range v.Findings {
		r.report.Breaches = append(r.report.Breaches, f.String())
	}
	return v
}

func judged(h history.History, v history.Verdict) Judged {
	j := Judged{Operations: v.Operations, Unknown: v.Unknown, Messages: v.Messages, Compared: v.Compared}
	for _, s := range h.Streams {
		switch {
		case s.Router == "":
			j.Streams++
		case len(s.Messages) == 0:
		case s.Messages[0].Kind != history.Snapshot:
			j.Resumed++
			fallthrough
		default:
			j.Clients++
		}
	}
	return j
}

// keep writes the history to a file, and the charts.
func (r *run) keep(v history.Verdict) error {
	h := r.history.History()
	h.Command = r.cfg.Command
	path := filepath.Join(r.cfg.Dir, historyFile)
	err := write(path, func(w io.Writer) error { return json.NewEncoder(w).Encode(h) })
	if err == nil {
		r.say("history: %s; to judge it again: go run ./internal/chaos/chaos-leader --judge %s", path, path)
	}
	return errors.Join(err, charts(r.cfg.Dir, v))
}

// charts writes a page for each server whose operations have no order.
func charts(dir string, v history.Verdict) error {
	var errs []error
	for i, c := range v.Charts {
		errs = append(errs, write(filepath.Join(dir, fmt.Sprintf("operations-%d.html", i+1)), c.Write))
	}
	return errors.Join(errs...)
}

func write(path string, content func(io.Writer) error) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return content(file)
}

// JudgeFile judges a history that was written to a file, writes the charts beside
// it, and prints what it finds.
func JudgeFile(path string, into io.Writer) (breaches int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read history: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var h history.History
	if err := json.NewDecoder(file).Decode(&h); err != nil {
		return 0, fmt.Errorf("read history %s: %w", path, err)
	}
	v := history.Judge(h, judgeTime)
	for _, f := range v.Findings {
		if _, err := fmt.Fprintln(into, f); err != nil {
			return 0, fmt.Errorf("write findings: %w", err)
		}
	}
	_, err = fmt.Fprintf(into, "%d operations, %d without an answer; %d messages of %d streams; %d breaches; made by %s\n",
		v.Operations, v.Unknown, v.Messages, len(h.Streams), len(v.Findings), h.Command)
	return len(v.Findings), errors.Join(err, charts(filepath.Dir(path), v))
}
