//go:build lab && linux

package netlab_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/buddyring/buddyring/internal/leak"
	"github.com/buddyring/buddyring/internal/netlab"
)

// roleEnv makes the test binary play a program that uses netlab.
const roleEnv = "NETLAB_TEST_ROLE"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	inside := func(context.Context) int {
		return leak.Run(m, goleak.IgnoreAnyFunction("github.com/buddyring/buddyring/internal/netlab.follow"))
	}
	entry := netlab.Entry{}
	ctx := context.Background()
	switch os.Getenv(roleEnv) {
	case "ping":
		inside, entry.Unprivileged = pingOnce, true
	case "hang":
		inside = hang
	case "wait":
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGTERM)
		defer stop()
		inside = wait
	}
	code, err := netlab.Enter(ctx, entry, inside)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\nthe lab tests need root, or unprivileged user namespaces: run them with sudo\n", err)
		return 1
	}
	return code
}
