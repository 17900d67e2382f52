package docs_test

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/command"
)

// buddyctl is the command line as it is built.
func buddyctl() *cobra.Command {
	return command.New(command.World{
		Stdout: io.Discard, Stderr: io.Discard, Now: time.Now,
	}, &cobra.Command{Use: "demo", RunE: func(*cobra.Command, []string) error { return nil }})
}

// usable says what is wrong with a command line, without running it.
func usable(root *cobra.Command, words []string) error {
	cmd, rest, err := root.Find(words)
	if err != nil || len(rest) == 0 {
		return err // the bare name of a command is no command line
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

func TestBuddyctlCommandsExist(t *testing.T) {
	t.Parallel()
	found := 0
	for _, d := range documents(t) {
		for _, words := range slices.Concat(commands(d.blocks(), "buddyctl"), spoken(d.prose(), "buddyctl")) {
			found++
			if err := usable(buddyctl(), words[1:]); err != nil {
				t.Errorf("%s: %s: %v", d.path, strings.Join(words, " "), err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d commands were found in all documents", found)
	}
}
