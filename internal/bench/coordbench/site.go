package coordbench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/process"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/internal/testdb"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// askTime bounds a question to the coordinator, startTime its start.
	askTime   = 20 * time.Second
	startTime = 30 * time.Second
	// askEvery is how often it is asked for what is waited for.
	askEvery = 20 * time.Millisecond
	// clockTick is the unit of processor time in /proc, which Linux fixes.
	clockTick = 10 * time.Millisecond
)

// site is a MariaDB and a coordinator on it.
type site struct {
	o      Options
	dir    string
	server *testdb.Server

	address, admin, web string
	proc                *process.Process
	failed              chan error
	conn                *grpc.ClientConn
	client              pb.AdminServiceClient
}

// here starts programs as this one does.
type here struct{}

func (here) Start(cmd *exec.Cmd) error { return cmd.Start() }

// startSite starts both, and returns when the coordinator leads.
func startSite(ctx context.Context, o Options) (s *site, err error) {
	s = &site{o: o, failed: make(chan error, 8)}
	if s.dir, err = os.MkdirTemp("", "bench-coordinator-"); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.server, err = startDatabase(); err != nil { //nolint:contextcheck // it has a time-out of its own
		return nil, err
	}
	if err := makeDatabase(ctx, s.server, "buddyring"); err != nil {
		return nil, err
	}
	for _, address := range []*string{&s.address, &s.admin, &s.web} {
		if *address, err = freeAddress(ctx); err != nil {
			return nil, err
		}
	}
	credentials, err := rpc.NewCredentials(rpc.Security{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	s.conn, err = rpc.Dial(rpc.DialConfig{
		Addresses: []string{s.admin}, Credentials: credentials, ServerRole: rpc.RoleCoordinator, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	s.client = pb.NewAdminServiceClient(s.conn)
	return s, s.start(ctx)
}

func startDatabase() (*testdb.Server, error) {
	return testdb.New("--innodb-buffer-pool-size=256M", "--innodb-log-file-size=256M")
}

func makeDatabase(ctx context.Context, server *testdb.Server, name string) error {
	if err := server.Do(ctx, "CREATE DATABASE "+name+" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"); err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	return nil
}

// freeAddress is one at which nobody listens now.
func freeAddress(ctx context.Context) (string, error) {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return lis.Addr().String(), lis.Close()
}

// launch starts the coordinator.
func (s *site) launch() (err error) {
	s.proc, err = process.Start(here{}, process.Program{
		Name: "coordinator", Path: filepath.Join(s.o.Bin, "buddyring-coordinator"), Log: filepath.Join(s.dir, "log"),
		Args: []string{
			"--id", "c1", "--store", s.server.URL("buddyring"), "--migrate", "auto", "--state-dir", filepath.Join(s.dir, "state"),
			"--listen", s.address, "--advertise", s.address, "--admin-listen", s.admin, "--http-listen", s.web,
		},
	}, func(err error) { s.failed <- err })
	return err
}

// start starts the coordinator and waits until it leads.
func (s *site) start(ctx context.Context) error {
	if err := s.launch(); err != nil {
		return err
	}
	return s.until(ctx, startTime, "the coordinator leads", func(ctx context.Context) (bool, error) {
		status, err := s.client.GetStatus(ctx, &pb.GetStatusRequest{})
		return err == nil && status.GetState() == pb.LeaderState_LEADER_STATE_LEADER, err
	})
}

// until asks until something is true.
func (s *site) until(ctx context.Context, patience time.Duration, what string, is func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		within, cancel := context.WithTimeout(ctx, askTime)
		ok, err := is(within)
		cancel()
		if ok {
			return nil
		}
		select {
		case err := <-s.failed:
			return err
		case <-time.After(askEvery):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait until %s: %w", what, context.Cause(ctx)), err)
		}
	}
}

// pool returns the pool as the coordinator shows it.
func (s *site) pool(ctx context.Context) (*pb.Pool, error) {
	res, err := s.client.GetPool(ctx, &pb.GetPoolRequest{})
	return res.GetPool(), err
}

// allActive waits until all members are active.
func (s *site) allActive(ctx context.Context, n int, patience time.Duration) error {
	var last *pb.Pool
	err := s.until(ctx, patience, "all servers are active", func(ctx context.Context) (bool, error) {
		p, err := s.pool(ctx)
		last = p
		return int(p.GetActive()) == n, err
	})
	if err != nil {
		return fmt.Errorf("%w; %d of %d members are", err, last.GetActive(), last.GetMembers())
	}
	return nil
}

// kill ends the coordinator by SIGKILL.
func (s *site) kill() { s.proc.Kill() }

func (s *site) close() error {
	var errs []error
	if s.proc != nil {
		s.proc.Kill()
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// metric returns the sum of a metric of the coordinator over its labels.
func (s *site) metric(ctx context.Context, name string) (sum float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.web+"/metrics", nil)
	if err != nil {
		return 0, fmt.Errorf("ask for metrics: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask for metrics: %w", err)
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("read metric %s: %w", name, err)
		}
		sum += value
	}
	return sum, lines.Err()
}

// processorTime is what the coordinator has used so far.
func (s *site) processorTime() (time.Duration, error) { return processorTime(s.proc.Pid()) }

// processorTime is what a process has used so far.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	// The name of the program, in parentheses, may have spaces.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const user, system = 11, 12
	var ticks int64
	for _, i := range []int{user, system} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// work is the processor time of those who share the machine during an experiment.
type work struct{ coordinator, database, driver time.Duration }

// work is what all have used so far.
func (s *site) work() (w work, err error) {
	for pid, to := range map[int]*time.Duration{s.proc.Pid(): &w.coordinator, s.server.Pid(): &w.database, os.Getpid(): &w.driver} {
		if *to, err = processorTime(pid); err != nil {
			return work{}, err
		}
	}
	return w, nil
}

func (w work) since(before work) work {
	return work{w.coordinator - before.coordinator, w.database - before.database, w.driver - before.driver}
}

// files makes sure that n more files can be opened, here and by the coordinator,
// which inherits the limit.
func files(n int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	const others = 256
	need := uint64(n + others)
	if limit.Max < need {
		raised := syscall.Rlimit{Cur: need, Max: need}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
			return fmt.Errorf("%d open files are needed and %d are allowed: raise the limit (ulimit -Hn), or take fewer with --agents", need, limit.Max)
		}
	}
	return nil
}
