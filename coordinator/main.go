// Command buddyring-coordinator owns the table of servers and their buddies.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/member"
)

// gcPercent is less than usual: thousands of streams hold much memory and make
// little garbage, so that it saves more than it costs. GOGC says otherwise.
const gcPercent = 40

func main() { os.Exit(run()) }

// run returns 1 for what failed and 2 for what was asked wrongly.
func run() int {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the program where it is.
	context.AfterFunc(ctx, stop)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	err := server.Command(os.Args[1:], hangups).ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "buddyring-coordinator: %v\n", err)
	if errors.Is(err, member.ErrInvalid) {
		return 2
	}
	return 1
}
