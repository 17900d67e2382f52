package chaos

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/freeport"
	"github.com/buddyring/buddyring/internal/process"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/internal/testdb"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const database = "buddyring"

// chaosPool is that of the scripted agents; serverPrefix begins the ids of those
// that come and go all the time.
const (
	chaosPool    = "default"
	serverPrefix = "web-"
)

// flush is the setting of the database that keeps what it has acknowledged.
const flush = "innodb_flush_log_at_trx_commit"

// askTime bounds a question to a coordinator.
const askTime = time.Second

// servers are what the coordinators write to: one MariaDB, or a Galera cluster. They
// crash, recover, pause and go on together.
type servers interface {
	Servers() []*testdb.Server
	Crash() error
	Recover() error
	Pause() error
	Continue() error
	Close() error
}

// site is a database and the coordinators on it.
type site struct {
	bin, dir    string
	unsafe      bool
	credentials *rpc.Credentials
	servers     servers
	// cluster is what servers is with Galera, else nil.
	cluster *testdb.Cluster
	// dbs are the servers, for somebody who only looks.
	dbs []*sql.DB
	all []*coordinator

	mu sync.Mutex
	// crashed are the coordinators that nobody has ended.
	crashed []error
}

// coordinator is one of them. It listens by itself, so that a dead one refuses
// connections as a dead process does.
type coordinator struct {
	id             string
	address, admin string
	// front is what is told of it.
	front  *front
	gates  gates
	proc   *process.Process
	conn   *grpc.ClientConn
	client pb.AdminServiceClient
}

// here starts programs as this one does.
type here struct{}

func (here) Start(cmd *exec.Cmd) error { return cmd.Start() }

func newSite(ctx context.Context, cfg Config) (s *site, err error) {
	credentials, err := rpc.NewCredentials(rpc.Security{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	s = &site{bin: cfg.Bin, dir: cfg.Dir, unsafe: cfg.Unsafe, credentials: credentials}
	made := s
	defer func() {
		if err != nil {
			err = errors.Join(err, made.close())
		}
	}()
	if err := s.startServers(cfg); err != nil { //nolint:contextcheck // it has a time-out of its own
		return nil, err
	}
	if err := s.servers.Servers()[0].Do(ctx, "CREATE DATABASE "+database+" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"); err != nil {
		return nil, fmt.Errorf("make database: %w", err)
	}
	if err := s.makeBarrier(ctx); err != nil {
		return nil, err
	}
	for _, server := range s.servers.Servers() {
		db, err := open(server.Socket())
		if err != nil {
			return nil, err
		}
		s.dbs = append(s.dbs, db)
	}
	for i := range cfg.Coordinators {
		c, err := s.newCoordinator(ctx, "c"+strconv.Itoa(i+1))
		if err != nil {
			return nil, err
		}
		s.all = append(s.all, c)
		if err := s.start(ctx, c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *site) startServers(cfg Config) error {
	if cfg.Galera {
		cluster, err := testdb.NewCluster()
		if err != nil {
			return err
		}
		s.servers, s.cluster = cluster, cluster
		return nil
	}
	var options []string
	if cfg.Unsafe {
		options = append(options, "--"+flush+"=0")
	}
	server, err := testdb.New(options...)
	if err != nil {
		return err
	}
	s.servers = server
	return nil
}

// whole waits until all nodes of the cluster work together, if there is one.
func (s *site) whole(ctx context.Context) error {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.AwaitWhole(ctx)
}

// open opens the database as somebody who only looks, on a node of a cluster at what
// any node has acknowledged.
func open(socket string) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName, cfg.Logger = "root", "unix", socket, database, &mysql.NopLogger{}
	cfg.Params = map[string]string{"wsrep_sync_wait": "1"}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("configure connection: %w", err)
	}
	return sql.OpenDB(connector), nil
}

func (s *site) newCoordinator(ctx context.Context, id string) (*coordinator, error) {
	c := &coordinator{id: id}
	for _, address := range []*string{&c.address, &c.admin} {
		free, err := freeport.Find(ctx)
		if err != nil {
			return nil, err
		}
		*address = free
	}
	conn, err := s.dial(c.admin)
	if err != nil {
		return nil, err
	}
	if c.front, err = newFront(ctx, c.address); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if c.gates, err = newGates(s.servers.Servers()); err != nil { //nolint:contextcheck // they live until close
		return nil, errors.Join(err, c.front.relay.Close(), conn.Close())
	}
	c.conn, c.client = conn, pb.NewAdminServiceClient(conn)
	return c, nil
}

func (s *site) dial(address string) (*grpc.ClientConn, error) {
	return rpc.Dial(rpc.DialConfig{
		Addresses: []string{address}, Credentials: s.credentials, ServerRole: rpc.RoleCoordinator,
		Logger: slog.New(slog.DiscardHandler),
	})
}

// start starts a coordinator and waits until it answers.
func (s *site) start(ctx context.Context, c *coordinator) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it does not answer"))
	defer cancel()
	failed := make(chan error, 1)
	args := []string{
		"--id", c.id, "--store", c.gates.url(), "--migrate", "auto", "--listen", c.address, "--advertise", c.front.address,
		"--admin-listen", c.admin, "--http-listen", "127.0.0.1:0", "--allow-local-addresses",
	}
	if s.unsafe {
		args = append(args, "--store-accept-unsafe", flush)
	}
	proc, err := process.Start(here{}, process.Program{
		Name: c.id, Path: filepath.Join(s.bin, "buddyring-coordinator"), Log: filepath.Join(s.dir, c.id+".log"),
		Args: args,
	}, func(err error) {
		s.mu.Lock()
		s.crashed = append(s.crashed, err)
		s.mu.Unlock()
		failed <- err
	})
	if err != nil {
		return err
	}
	c.proc = proc
	for ctx.Err() == nil {
		if _, err := c.status(ctx); err == nil {
			return nil
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("start %s: %w", c.id, context.Cause(ctx))
}

func (c *coordinator) status(ctx context.Context) (*pb.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return c.client.GetStatus(ctx, &pb.GetStatusRequest{})
}

// leader waits until a coordinator says that it leads.
func (s *site) leader(ctx context.Context) (*coordinator, uint64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("nobody leads"))
	defer cancel()
	for ctx.Err() == nil {
		for _, c := range s.all {
			status, err := c.status(ctx)
			if err == nil && status.GetState() == pb.LeaderState_LEADER_STATE_LEADER {
				return c, status.GetEpoch(), nil
			}
		}
		sleep(ctx, 20*time.Millisecond)
	}
	return nil, 0, fmt.Errorf("find the leader: %w", context.Cause(ctx))
}

// crashes tells of the coordinators that have ended by themselves.
func (s *site) crashes() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.crashed...)
}

// logs is where the coordinators' logs are, for who wants to know more.
func (s *site) logs(into io.Writer) {
	for _, c := range s.all {
		_, _ = fmt.Fprintf(into, "log of %s: %s\n", c.id, filepath.Join(s.dir, c.id+".log"))
	}
}

func (s *site) close() error {
	var errs []error
	for _, c := range s.all {
		if c.proc != nil {
			_ = c.proc.Signal(syscall.SIGCONT) // it may have ended
			c.proc.Kill()
		}
		errs = append(errs, c.conn.Close(), c.front.relay.Close(), c.gates.close())
	}
	for _, db := range s.dbs {
		errs = append(errs, db.Close())
	}
	if s.servers != nil {
		errs = append(errs, s.servers.Close())
	}
	return errors.Join(errs...)
}

// sleep waits, no longer than ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
