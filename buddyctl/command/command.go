// Package command is the command line for people and scripts. Everything that
// its commands do with a running system is one RPC of AdminService or
// RouterService, so grpcurl can do it too.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/config"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/internal/version"
)

// Prefix is that of the environment variables.
const Prefix = "BUDDYCTL"

// Defaults of the flags.
const (
	defaultAdmin   = "127.0.0.1:7401"
	defaultRouter  = "127.0.0.1:7500"
	defaultTimeout = 10 * time.Second
)

// World is what the commands have to do with.
type World struct {
	Stdout, Stderr io.Writer
	// Terminal is what Stdout is.
	Terminal output.Terminal
	// Now is the clock; its zone is the one that times are shown in.
	Now func() time.Time
	// Dialer opens connections; nil for TCP.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
	// Exec runs a command that is ready to be started; nil for real.
	Exec func(*exec.Cmd) error
}

// complain writes a message to Stderr; where that fails there is nobody left to
// tell.
func (w World) complain(message string) { _, _ = fmt.Fprintln(w.Stderr, "buddyctl: "+message) }

// app holds the flags that all commands share.
type app struct {
	World

	admin, router []string
	pool          string
	format        output.Format
	timeout       time.Duration
	security      rpc.Security
	// standby says that a standby has answered.
	standby bool
}

// groups of the help page.
const (
	groupLook    = "look"
	groupChange  = "change"
	groupInstall = "install"
)

// New returns the root command with all commands, and with further ones that
// are made elsewhere.
func New(w World, further ...*cobra.Command) *cobra.Command {
	a := &app{World: w, format: output.Table}
	root := &cobra.Command{
		Use:   "buddyctl",
		Short: "Look at and administer buddyring's pools of servers",
		Long: "buddyctl looks at and administers buddyring's pools of servers.\n\n" +
			"Every flag is also an environment variable (--admin is " + config.Variable(Prefix, "admin") +
			") and a key of the --config file.\n\n" +
			"Exit status: 0 yes or done, 1 no, 2 wrong usage, 3 cannot reach, 4 refused by a safety rule, " +
			"5 deadline exceeded.",
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("buddyctl {{.Version}}\n")
	root.SetOut(w.Stdout)
	root.SetErr(w.Stderr)
	root.SetGlobalNormalizationFunc(normalize)
	root.AddGroup(
		&cobra.Group{ID: groupLook, Title: "Look:"},
		&cobra.Group{ID: groupChange, Title: "Change:"},
		&cobra.Group{ID: groupInstall, Title: "Try and install:"},
	)
	a.globalFlags(root)
	config.Bind(root, Prefix)
	add(root, groupLook, a.statusCommand(), a.poolsCommand(), a.serversCommand(), a.ringCommand(), a.checkCommand(),
		a.explainCommand(), a.eventsCommand(), a.alarmsCommand(), a.intentsCommand(), a.routersCommand(), a.sessionsCommand(),
		a.pickCommand())
	add(root, groupChange, a.drainCommand(), a.resumeCommand(), a.rollingCommand(), a.intentCommand(),
		a.removeCommand(), a.replaceCommand(), a.brakeCommand(), a.repairCommand(), a.stepDownCommand(), a.backupCommand(), a.restoreCommand())
	add(root, groupInstall, append([]*cobra.Command{a.caCommand()}, further...)...)
	mark(root)
	return root
}

func add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringSliceVar(&a.admin, "admin", []string{defaultAdmin}, "`HOST:PORT` of the coordinators for operators, tried in order until the leader answers")
	f.StringSliceVar(&a.router, "router", []string{defaultRouter}, "`HOST:PORT` of the routers, tried in order; for pick")
	f.StringVar(&a.pool, "pool", "", "pool; may be left out where there is only one")
	f.VarP(&formatFlag{&a.format}, "output", "o", "table, json or yaml")
	f.DurationVar(&a.timeout, "timeout", defaultTimeout, "how long a command may take")
	config.SecurityFlags(f, &a.security)
	complete(root, "output", fixed("table", "json", "yaml"))
	complete(root, "pool", a.completePools)
}

// normalize makes --dry-run another name of --validate-only.
func normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "dry-run" {
		name = "validate-only"
	}
	return pflag.NormalizedName(name)
}

// Run runs a command line and returns the exit status. It writes errors to
// Stderr.
func Run(ctx context.Context, args []string, w World, further ...*cobra.Command) int {
	root := New(w, further...) //nolint:contextcheck // the commands get theirs when they are run
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitYes
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		w.complain("interrupted")
		return exitNo
	}
	if failed, ok := errors.AsType[*failure](err); ok {
		w.complain(output.Line(failed.Error()))
		return exitCode(failed.err)
	}
	// cobra's messages have a paragraph with suggestions, which is worth keeping.
	w.complain(fmt.Sprintf("%s\nsee %q", strings.TrimSpace(err.Error()), cmd.CommandPath()+" --help"))
	return exitUsage
}

// exactly wants these arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return member.Invalid(names[len(args)], "is missing")
		}
		return atMost(args, len(names))
	}
}

// optional wants one argument or none.
func optional(_ *cobra.Command, args []string) error { return atMost(args, 1) }

func atMost(args []string, n int) error {
	if len(args) > n {
		return member.Invalid("arguments", "%q is one too many", args[n])
	}
	return nil
}

// failure is an error of a command that has begun; all others are errors of
// its usage.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// mark makes the errors of all commands failures.
func mark(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := run(cmd, args); err != nil {
				return &failure{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		mark(sub)
	}
}

// logger writes the few warnings of the connections, without the time.
func (a *app) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
			if len(groups) == 0 && attr.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return attr
		},
	}))
}

// formatFlag is the flag --output.
type formatFlag struct{ format *output.Format }

// String returns the format's name.
func (f *formatFlag) String() string { return string(*f.format) }

// Set parses a format.
func (f *formatFlag) Set(s string) error {
	format, err := output.ParseFormat("output", s)
	if err != nil {
		return err
	}
	*f.format = format
	return nil
}

// Type names the kind of value in help pages.
func (f *formatFlag) Type() string { return "format" }
