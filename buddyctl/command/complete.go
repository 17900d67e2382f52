package command

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// completionTimeout keeps a shell responsive when nobody answers.
const completionTimeout = time.Second

// complete sets the completion of a flag that the command has.
func complete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	// It fails only when the flag does not exist or was given one before, and
	// then the completion's test does too.
	_ = cmd.RegisterFlagCompletionFunc(flag, f)
}

func fixed(values ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
}

func enum(d protoreflect.EnumDescriptor) cobra.CompletionFunc { return fixed(output.Names(d)...) }

// ask asks a coordinator for candidates. Whatever fails gives none: a message
// would end up in the line that is being typed.
func (a *app) ask(
	cmd *cobra.Command, prefix string, list func(context.Context, coordinatorv1.AdminServiceClient) ([]string, error),
) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	// Completion does not run what fills the flags before a command.
	if err := cmd.Root().PersistentPreRunE(cmd, nil); err != nil {
		return nil, directive
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	a.timeout = min(a.timeout, completionTimeout)
	var names []string
	err := a.askAdmin(ctx, func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
		names, err = list(ctx, c)
		return err
	})
	if err != nil {
		return nil, directive
	}
	var candidates []string
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			candidates = append(candidates, n)
		}
	}
	return candidates, directive
}

func (a *app) completePools(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.ask(cmd, prefix, func(ctx context.Context, c coordinatorv1.AdminServiceClient) ([]string, error) {
		pools, err := listPools(ctx, c)
		names := make([]string, len(pools))
		for i, p := range pools {
			names[i] = p.GetPool()
		}
		return names, err
	})
}

func (a *app) completeServers(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.ask(cmd, prefix, func(ctx context.Context, c coordinatorv1.AdminServiceClient) ([]string, error) {
		list, err := listServers(ctx, c, &coordinatorv1.ListServersRequest{Pool: a.pool})
		names := make([]string, len(list.GetServers()))
		for i, s := range list.GetServers() {
			names[i] = s.GetServerId()
		}
		return names, err
	})
}

// arguments completes each positional argument by its own function, and those
// beyond by nothing.
func arguments(functions ...cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(functions) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return functions[len(args)](cmd, args, prefix)
	}
}
