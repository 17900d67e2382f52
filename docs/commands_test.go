package docs_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	agent "github.com/buddyring/buddyring/agent/daemon"
	"github.com/buddyring/buddyring/buddyctl/command"
	"github.com/buddyring/buddyring/buddyctl/demo"
	"github.com/buddyring/buddyring/buddyctl/simulate"
	coordinator "github.com/buddyring/buddyring/coordinator/server"
	router "github.com/buddyring/buddyring/router/server"
)

// buddyctl is the command line as it is built.
func buddyctl() *cobra.Command {
	return command.New(command.World{
		Stdout: io.Discard, Stderr: io.Discard, Now: time.Now,
	}, demo.Command(), simulate.Command())
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
			"buddyring-agent":       func() *cobra.Command { return agent.Command(nil, nil) },
			"buddyring-coordinator": func() *cobra.Command { return coordinator.Command(nil, nil) },
			"buddyring-router":      func() *cobra.Command { return router.Command(nil, nil) },
		} {
			for _, words := range slices.Concat(commands(d.blocks(), program), spoken(d.prose(), program)) {
				found[program]++
				if err := usable(root(), words[1:]); err != nil {
					t.Errorf("%s: %s: %v", d.path, strings.Join(words, " "), err)
				}
			}
		}
	}
	for program, least := range map[string]int{"buddyctl": 20, "buddyring-agent": 1, "buddyring-coordinator": 2, "buddyring-router": 1} {
		if found[program] < least {
			t.Errorf("only %d commands of %s were found in all documents", found[program], program)
		}
	}
}

func TestMakeTargetsExist(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range documents(t) {
		for _, words := range slices.Concat(commands(d.blocks(), "make"), spoken(d.prose(), "make")) {
			if len(words) > 1 && !strings.Contains(string(makefile), "\n"+words[1]+":") {
				t.Errorf("%s: %s: no such target", d.path, strings.Join(words, " "))
			}
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

// The examples of the help pages are command lines too.
func TestExamplesAreUsable(t *testing.T) {
	t.Parallel()
	found := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			found++
			if words := split(line); len(words) < 2 || words[0] != "buddyctl" {
				t.Errorf("%s: %q is no command", cmd.CommandPath(), line)
			} else if err := usable(buddyctl(), words[1:]); err != nil {
				t.Errorf("%s: %s: %v", cmd.CommandPath(), line, err)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(buddyctl())
	if found < 10 {
		t.Errorf("only %d examples were found", found)
	}
}
