// Command buddyring-agent watches two servers of a pool and speaks for its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/buddyring/buddyring/agent/daemon"
	"github.com/buddyring/buddyring/internal/member"
)

func main() { os.Exit(run()) }

// run returns 1 for what failed and 2 for what was asked wrongly.
func run() int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := daemon.Command(os.Args[1:], signals).ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "buddyring-agent: %v\n", err)
	if errors.Is(err, member.ErrInvalid) {
		return 2
	}
	return 1
}
