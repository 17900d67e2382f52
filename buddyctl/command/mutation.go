package command

import (
	"crypto/rand"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
)

// mutation holds the flags that all changes have.
type mutation struct {
	requestID    string
	reason       string
	validateOnly bool
	// revision is nil where the flag is absent.
	revision *uint64
}

// flags defines the flags of a change; withRevision tells whether the change
// has an expected revision.
func (m *mutation) flags(cmd *cobra.Command, withRevision bool) {
	f := cmd.Flags()
	f.StringVar(&m.requestID, "request-id", "", "makes the change repeatable for an hour; random by default")
	f.StringVar(&m.reason, "reason", "", "why, for the history")
	f.BoolVar(&m.validateOnly, "validate-only", false, "check everything and change nothing; also --dry-run")
	var revision uint64
	if withRevision {
		f.Uint64Var(&revision, "expected-revision", 0, "refuse unless the pool is at this revision")
	}
	cmd.PreRun = func(*cobra.Command, []string) {
		if f.Changed("expected-revision") {
			m.revision = &revision
		}
		if m.requestID == "" {
			m.requestID = rand.Text()
		}
	}
}

// unsure adds to the error of a change that may have happened how to repeat it.
func (m *mutation) unsure(err error) error {
	if m.validateOnly || !mayHaveHappened(err) {
		return err
	}
	return fmt.Errorf("%w; it may have happened: repeat it with --request-id %s, and it is done once", err, m.requestID)
}

// changed shows the outcome of a change: done as a sentence, unless it was only
// validated.
func (a *app) changed(m *mutation, answer proto.Message, done string) error {
	return a.show(answer, func(w io.Writer) error {
		if m.validateOnly {
			return say(w, "valid; nothing was changed")
		}
		return say(w, "%s", done)
	})
}
