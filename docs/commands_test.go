package docs_test

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/command"
	coordinator "github.com/buddyring/buddyring/coordinator/server"
	router "github.com/buddyring/buddyring/router/server"
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

func TestCommandsExist(t *testing.T) {
	t.Parallel()
	found := map[string]int{}
	for _, d := range documents(t) {
		for program, root := range map[string]func() *cobra.Command{
			"buddyctl":              buddyctl,
			"buddyring-coordinator": coordinator.Command,
			"buddyring-router":      router.Command,
		} {
			for _, words := range slices.Concat(commands(d.blocks(), program), spoken(d.prose(), program)) {
				found[program]++
				if err := usable(root(), words[1:]); err != nil {
					t.Errorf("%s: %s: %v", d.path, strings.Join(words, " "), err)
				}
			}
		}
	}
	for program, least := range map[string]int{"buddyctl": 20, "buddyring-coordinator": 2, "buddyring-router": 1} {
		if found[program] < least {
			t.Errorf("only %d commands of %s were found in all documents", found[program], program)
		}
	}
}

// Every alarm has an entry in the runbook, where the alarm says it is.
func TestEveryAlarmIsInTheRunbook(t *testing.T) {
	t.Parallel()
	known := anchors(t, "runbook.md")
	for _, name := range coordinator.AlarmNames() {
		if !slices.Contains(known, strings.ToLower(name)) {
			t.Errorf("the runbook has no entry %s", name)
		}
	}
}
