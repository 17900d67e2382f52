package command

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/buddyring/buddyring/buddyctl/pki"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

// Defaults of the certificate authority.
const (
	caDirectory = "buddyring-ca"
	caValid     = 10 * 365 * 24 * time.Hour
	certValid   = 365 * 24 * time.Hour
	// installed is where the texts suggest to put the files.
	installed = "/etc/buddyring"
)

func (a *app) caCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make a certificate authority and certificates for a first installation",
		Example: "  buddyctl ca init --domain example.org\n  buddyctl ca issue coordinator c-1 --host c-1.example.org\n" +
			"  buddyctl ca issue agent default web-3\n  buddyctl ca issue admin ann",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.caInitCommand(), a.caIssueCommand())
	return cmd
}

// caDir defines the flag for the authority's directory.
func caDir(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", caDirectory, "directory of the CA")
	complete(cmd, "dir", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
}

func validFor(cmd *cobra.Command, valid *time.Duration, usual time.Duration) {
	cmd.Flags().DurationVar(valid, "valid", usual, "how long it is valid")
}

func checkValid(valid time.Duration) error {
	if valid <= 0 {
		return member.Invalid("valid", "%s is not a length of time from now", valid)
	}
	return nil
}

func (a *app) caInitCommand() *cobra.Command {
	var dir, domain string
	var valid time.Duration
	cmd := &cobra.Command{
		Use:               "init",
		Short:             "Make a certificate authority for a trust domain",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if err := checkValid(valid); err != nil {
				return err
			}
			authority, err := pki.NewAuthority(domain, a.Now(), valid)
			if err != nil {
				return err
			}
			files, err := authority.Save(dir)
			if err != nil {
				return err
			}
			return lines(a.Stdout,
				fmt.Sprintf("made %s: copy it to %s/ca.crt on every host", files.Cert, installed),
				fmt.Sprintf("made %s: keep it here and nowhere else; whoever has it can be anybody", files.Key),
				"next: buddyctl ca issue coordinator NAME"+dirFlag(dir))
		},
	}
	caDir(cmd, &dir)
	validFor(cmd, &valid, caValid)
	cmd.Flags().StringVar(&domain, "domain", "", "trust domain of all identities, such as example.org")
	return cmd
}

// dirFlag is the flag to repeat in a text, if it is needed.
func dirFlag(dir string) string {
	if dir == caDirectory {
		return ""
	}
	return " --dir " + dir
}

func lines(w io.Writer, texts ...string) error {
	for _, t := range texts {
		if err := say(w, "%s", t); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) caIssueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "issue",
		Short: "Make a certificate and its key for a process or a person",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.caIssueRole(rpc.RoleAgent, "agent POOL ID", "the agent that speaks for a server"),
		a.caIssueRole(rpc.RoleRouter, "router ID", "a router"),
		a.caIssueRole(rpc.RoleCoordinator, "coordinator ID", "a coordinator"),
		a.caIssueRole(rpc.RoleAdmin, "admin NAME", "a person or a script that administers"),
		a.caIssueRole(rpc.RoleClient, "client NAME", "a program that uses a pool, and may ask routers only"),
	)
	return cmd
}

func (a *app) caIssueRole(role rpc.Role, use, whom string) *cobra.Command {
	var dir string
	var valid time.Duration
	var hosts []string
	names := strings.Fields(use)[1:]
	cmd := &cobra.Command{
		Use:               use,
		Short:             "Make a certificate for " + whom,
		Args:              exactly(names...),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkValid(valid); err != nil {
				return err
			}
			authority, err := pki.Open(dir)
			if err != nil {
				return err
			}
			identity, name, err := parseIdentity(authority.Domain, role, args)
			if err != nil {
				return err
			}
			issued, err := authority.Issue(pki.Wanted{Identity: identity, Hosts: hosts, Valid: valid}, a.Now())
			if err != nil {
				return err
			}
			files, err := issued.Save(dir, name)
			if err != nil {
				return err
			}
			return lines(a.Stdout, whatToCopy(role, files, issued, dir)...)
		},
	}
	caDir(cmd, &dir)
	validFor(cmd, &valid, certValid)
	cmd.Flags().StringSliceVar(&hosts, "host", nil,
		"DNS name or IP address for clients that check those, such as grpcurl; repeatable")
	return cmd
}

// parseIdentity reads the names in the arguments; it also returns the name of
// the files.
func parseIdentity(domain string, role rpc.Role, args []string) (rpc.Identity, string, error) {
	id := rpc.Identity{Domain: domain, Role: role, Name: args[len(args)-1]}
	if _, err := member.ParseID("name", id.Name); err != nil {
		return id, "", err
	}
	name := string(role) + "-" + id.Name
	if role == rpc.RoleAgent {
		pool, err := member.ParsePool("pool", args[0])
		if err != nil {
			return id, "", err
		}
		id.Pool = pool
		// A pool has no dot, so two agents never share a name.
		name = string(role) + "-" + string(pool) + "." + id.Name
	}
	return id, name, nil
}

func whatToCopy(role rpc.Role, f pki.Files, issued *pki.Issued, dir string) []string {
	program := "buddyring-" + string(role)
	where, to := "to its host as ", installed+"/"+string(role)
	if role == rpc.RoleAdmin {
		program, where, to = "buddyctl", "to their owner as ", "~/.buddyring/admin"
	}
	ca := filepath.Dir(to) + "/" + pki.CAFile
	then := fmt.Sprintf("then: %s --tls-cert %s.crt --tls-key %s.key --tls-ca %s", program, to, to, ca)
	if role == rpc.RoleClient {
		then = "then: name them where your program gets its credentials for routers: a bootstrap file of xDS, client.Config.Credentials"
	}
	return []string{
		fmt.Sprintf("made %s and %s for %s, valid until %s",
			f.Cert, f.Key, issued.Cert.URIs[0], issued.Cert.NotAfter.UTC().Format(time.DateOnly)),
		fmt.Sprintf("copy them %s%s.crt and %s.key, and %s as %s", where, to, to, filepath.Join(dir, pki.CAFile), ca),
		then,
	}
}
