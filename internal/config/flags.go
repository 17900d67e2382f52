package config

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/internal/rpc"
)

// SecurityFlags defines the flags that fill s.
func SecurityFlags(flags *pflag.FlagSet, s *rpc.Security) {
	flags.StringVar(&s.CertFile, "tls-cert", "", "PEM file with the own certificate; reloaded when it changes")
	flags.StringVar(&s.KeyFile, "tls-key", "", "PEM file with the key of --tls-cert")
	flags.StringVar(&s.CAFile, "tls-ca", "", "PEM file with the CA certificates that peers are verified against")
	flags.BoolVar(&s.Insecure, "insecure", false, "allow plaintext beyond loopback")
}

// ConnectionFlags defines the flags that fill l, of which the usage says whose
// connections they are.
func ConnectionFlags(flags *pflag.FlagSet, l *quota.Limits, whose string) {
	flags.IntVar(&l.Total, "max-connections", l.Total,
		"how many connections "+whose+" there may be at a time, fewer if the process may not open so many files; the next one is closed at once")
	flags.IntVar(&l.PerSource, "max-connections-per-source", l.PerSource,
		"how many of them one source may have: an IPv4 address or an IPv6 /64")
}

// LogFlags defines the flags that fill l.
func LogFlags(flags *pflag.FlagSet, l *observe.LogConfig) {
	flags.StringVar(&l.Format, "log-format", "text", "text or json")
	flags.StringVar(&l.Level, "log-level", "info", "debug, info, warn or error")
}

// NoArgs is cobra.NoArgs with a member.FieldError: who asks for what there is not
// has asked wrongly.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return member.Invalid("command line", "unknown command %q; see \"%s --help\"", args[0], cmd.CommandPath())
}

// ValidateCommand returns the sub-command "validate": it reads the
// configuration as a start would and calls check, which must parse it as the
// start does and change nothing.
func ValidateCommand(check func() error) *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration and exit",
		Args:  NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := check(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "configuration is valid")
			return err
		},
	}
}
