package client

import (
	"errors"
	"fmt"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/buddyring/buddyring/internal/member"
)

// Config says which pool to follow, and how. Routers and Credentials are needed.
type Config struct {
	// Pool is the pool's name. [DialOption] takes it from the target.
	Pool string
	// Routers are HOST:PORT. They are tried in turn, from a random one on; the one
	// that answers is followed until it fails. A name is resolved at each attempt.
	Routers []string
	// Credentials secure the connections to routers. Plaintext must be asked for:
	// [google.golang.org/grpc/credentials/insecure.NewCredentials].
	Credentials credentials.TransportCredentials
	// StateDir is a directory in which the last view of the pool is kept, so that
	// a program can start while no router can be reached. Empty for none. Several
	// programs may share it: all read, one writes.
	StateDir string
	// Endpoint is the name of the endpoint to use; empty for the first one of each
	// server. Servers without it are not used. [DialOption] takes it from the
	// target, buddyring:///POOL?endpoint=NAME.
	Endpoint string
	// Zone is where the program runs. ACTIVE servers of the zone are preferred as
	// long as they can bear it: up to 1.4 times the average of the pool, if every
	// zone asked for equally much. Empty for no preference.
	Zone string
	// Policy is how to choose where a request does not say. [DialOption] uses it
	// unless ServiceConfig is set.
	Policy Policy
	// ServiceConfig is for [DialOption] only: the gRPC service config of the
	// connection, in JSON. It may name any balancer of gRPC instead of this
	// package's own, which is "buddyring".
	ServiceConfig string
	// Logger hears of routers that are lost or refused. Nil for none.
	Logger *slog.Logger
	// DialOptions are added to the connections to routers.
	DialOptions []grpc.DialOption
}

// Errors of this package. Others are wrapped in these.
var (
	// ErrUnknown says that no router has told anything about the pool yet.
	ErrUnknown = errors.New("nothing is known of the pool yet")
	// ErrNoServer says that the pool has no server that may get this work.
	ErrNoServer = errors.New("no server may get this work")
	// ErrClosed says that the pool has been closed.
	ErrClosed = errors.New("closed")
)

// check returns the pool's name, or what is wrong.
func (c *Config) check() (member.Pool, error) {
	pool, err := member.ParsePool("Pool", c.Pool)
	if err != nil {
		return "", err
	}
	if len(c.Routers) == 0 {
		return "", member.Invalid("Routers", "at least one HOST:PORT is needed")
	}
	for _, r := range c.Routers {
		if err := member.CheckHostPort("Routers", r); err != nil {
			return "", err
		}
	}
	if c.Credentials == nil {
		return "", member.Invalid("Credentials", "are needed; for plaintext give insecure.NewCredentials()")
	}
	if _, ok := policyOf(c.Policy); !ok {
		return "", member.Invalid("Policy", "%q is none", c.Policy)
	}
	return pool, nil
}

func (c *Config) logger(pool member.Pool) *slog.Logger {
	log := c.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return log.With("pool", string(pool))
}

func poolError(pool member.Pool, err error) error { return fmt.Errorf("pool %q: %w", pool, err) }
