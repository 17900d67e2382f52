// Command buddyctl looks at and administers pools of servers.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/buddyring/buddyring/buddyctl/command"
	"github.com/buddyring/buddyring/buddyctl/demo"
	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/buddyctl/simulate"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the program where it is.
	context.AfterFunc(ctx, stop)
	return command.Run(ctx, os.Args[1:], command.World{
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Terminal: output.Detect(os.Stdout, os.Getenv),
		Now:      time.Now,
	}, demo.Command(), simulate.Command())
}
