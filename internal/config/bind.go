package config

import (
	"encoding/csv"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/buddyring/buddyring/internal/member"
)

// configFlag names the file.
const configFlag = "config"

// Bind gives the command, and all commands below it, the flag --config, and
// fills the flags of whichever is run before it runs. Whatever is wrong with the
// flags, the variables or the file is a member.FieldError. prefix is that of the
// environment variables, such as "BUDDYRING_AGENT". Call it once on the root,
// which must not have a PersistentPreRun of its own, nor may those below it.
func Bind(root *cobra.Command, prefix string) {
	root.PersistentFlags().String(configFlag, "",
		"YAML file with the same names as the flags; flags and "+prefix+"_* variables win over it")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return member.Invalid("command line", "%v", err) })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		return fill(root, cmd, prefix)
	}
}

// Variable is the environment variable of a flag.
func Variable(prefix, flag string) string {
	return prefix + "_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func fill(root, cmd *cobra.Command, prefix string) error {
	flags := cmd.Flags()
	fromLine := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { fromLine[f.Name] = true })

	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		value := os.Getenv(Variable(prefix, f.Name))
		if err != nil || fromLine[f.Name] || value == "" || !settable(f) {
			return
		}
		if setErr := setText(flags, f, value); setErr != nil {
			err = member.Invalid(Variable(prefix, f.Name), "%q: %v", value, setErr)
		}
		fromLine[f.Name] = true
	})
	if err != nil {
		return err
	}
	path, err := flags.GetString(configFlag)
	if err != nil || path == "" {
		return err
	}
	entries, err := readFile(path)
	if err != nil {
		return err
	}
	known := settings(root)
	for _, e := range entries {
		if !known[e.key] {
			return member.Invalid(e.at, "unknown setting %q", e.key)
		}
		f := flags.Lookup(e.key)
		if f == nil || fromLine[e.key] {
			continue
		}
		if err := setList(flags, f, e.values, e.list); err != nil {
			return member.Invalid(e.at, "%s: %v", e.key, err)
		}
	}
	return nil
}

// settable reports whether a flag is a setting rather than a question about
// the program.
func settable(f *pflag.Flag) bool {
	return f.Name != "help" && f.Name != "version"
}

// settings are the names that a file may have: the flags of all commands, for
// they share one file.
func settings(root *cobra.Command) map[string]bool {
	known := map[string]bool{}
	add := func(f *pflag.Flag) {
		if settable(f) && f.Name != configFlag {
			known[f.Name] = true
		}
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.Flags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return known
}

// setText sets a flag from the environment. Repeatable flags are separated by
// commas, quoted as in CSV where a value has one.
func setText(flags *pflag.FlagSet, f *pflag.Flag, text string) error {
	if _, ok := f.Value.(pflag.SliceValue); !ok {
		return flags.Set(f.Name, text)
	}
	values, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return fmt.Errorf("read list: %w", err)
	}
	return setList(flags, f, values, true)
}

func setList(flags *pflag.FlagSet, f *pflag.Flag, values []string, list bool) error {
	slice, ok := f.Value.(pflag.SliceValue)
	switch {
	case ok:
		if err := slice.Replace(values); err != nil {
			return err
		}
		f.Changed = true
		return nil
	case list:
		return fmt.Errorf("takes one value, not a list")
	default:
		return flags.Set(f.Name, values[0])
	}
}
