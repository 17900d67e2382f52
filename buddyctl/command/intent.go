package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func (a *app) intentCommand() *cobra.Command {
	var m mutation
	var lasts time.Duration
	wishes := coordinatorv1.Wish(0).Descriptor()
	cmd := &cobra.Command{
		Use:   "intent SERVER WISH",
		Short: "Set what an operator wants for a server id: " + strings.Join(output.Names(wishes), ", "),
		Long: "intent sets what an operator wants for a server id, whether or not it is a member. The wish\n" +
			"survives removal, rejoin, reboot and failover:\n\n" +
			"  active       nothing special; sets aside an earlier wish\n" +
			"  drain        gets no new work\n" +
			"  maintenance  is routed, but not judged\n" +
			"  banned       may not join",
		Example:           "  buddyctl intent web-3 drain --for 1h --reason \"new disk\"\n  buddyctl intent web-3 active",
		Args:              exactly("SERVER", "WISH"),
		ValidArgsFunction: arguments(a.completeServers, enum(wishes)),
		RunE: func(cmd *cobra.Command, args []string) error {
			wish, err := output.ParseName("WISH", wishes, args[1])
			if err != nil {
				return err
			}
			req := &coordinatorv1.SetIntentRequest{
				Pool: a.pool, ServerId: args[0], Wish: coordinatorv1.Wish(wish), ExpectedRevision: m.revision,
				RequestId: m.requestID, Reason: m.reason, ValidateOnly: m.validateOnly,
			}
			if cmd.Flags().Changed("for") {
				if lasts <= 0 {
					return member.Invalid("for", "%s is not a length of time from now", lasts)
				}
				req.ExpiresIn = durationpb.New(lasts)
			}
			var answer *coordinatorv1.SetIntentResponse
			stranger := false
			err = a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				if answer, err = c.SetIntent(ctx, req); err != nil || m.validateOnly {
					return err
				}
				_, err = c.GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: a.pool, ServerId: args[0]})
				stranger = errors.Is(err, member.ErrNotFound)
				return nil // the change is done, whatever is known of the server
			})
			if err != nil {
				return m.unsure(err)
			}
			return a.changed(&m, answer, a.wishText(answer, stranger))
		},
	}
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long it holds; without it, until it is changed")
	m.flags(cmd, true)
	return cmd
}

func (a *app) intentsCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "intents",
		Short:             "List what operators want for server ids, members or not: who is banned, drained, in maintenance",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := &coordinatorv1.ListIntentsResponse{}
			err := a.askAdmin(cmd.Context(), func(ctx context.Context, c coordinatorv1.AdminServiceClient) (err error) {
				list.Intents, err = pages(func(token string) ([]*coordinatorv1.Intent, string, error) {
					page, err := c.ListIntents(ctx, &coordinatorv1.ListIntentsRequest{Pool: a.pool, PageSize: pageSize, PageToken: token})
					list.Revision = page.GetRevision()
					return page.GetIntents(), page.GetNextPageToken(), err
				})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) error { return a.writeIntents(w, list.GetIntents()) })
		},
	}
}

func (a *app) writeIntents(w io.Writer, intents []*coordinatorv1.Intent) error {
	if len(intents) == 0 {
		return say(w, "no intents: operators want nothing special")
	}
	g := output.NewGrid("SERVER", "WISH", "FOR", "ENDS_IN", "ACTOR", "REASON")
	for _, i := range intents {
		ends := "never"
		if i.GetExpiresAt() != nil {
			ends = output.Until(a.Now(), i.GetExpiresAt())
		}
		g.Add(i.GetServerId(), output.Name(i.GetWish()), output.Since(a.Now(), i.GetSetAt()), ends, i.GetActor(), i.GetReason())
	}
	return g.Write(w, a.Terminal.Width)
}

func (a *app) wishText(answer *coordinatorv1.SetIntentResponse, stranger bool) string {
	i := answer.GetIntent()
	until := ""
	if i.GetExpiresAt() != nil {
		until = " for " + output.Until(a.Now(), i.GetExpiresAt())
	}
	text := fmt.Sprintf("the intent for %s is %s%s, at revision %d",
		i.GetServerId(), output.Name(i.GetWish()), until, answer.GetRevision())
	if stranger && i.GetWish() != coordinatorv1.Wish_WISH_ACTIVE {
		text += "; it is not a member now, and its id keeps the wish"
	}
	return text
}
