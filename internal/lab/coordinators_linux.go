package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/netlab"
	"github.com/buddyring/buddyring/internal/process"
	"github.com/buddyring/buddyring/internal/rpc"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// statusTime bounds a question to a coordinator that may have been stopped.
const statusTime = time.Second

// Coordinator is one of a site's coordinators.
type Coordinator struct {
	site *Site
	// id is its own and that of its host; agents is where agents and routers reach it.
	id     string
	agents netip.AddrPort
	// admin is the admin listener, which outlives the programs that it is handed to,
	// and conn the connection to it.
	admin *net.TCPListener
	conn  *grpc.ClientConn

	// process is guarded by site.mu.
	process *process.Process
}

// coordinatorName is the host of a coordinator, and its id.
func coordinatorName(i int) string {
	if i == 0 {
		return "coordinator"
	}
	return "coordinator-" + strconv.Itoa(i+1)
}

func (s *Site) startCoordinators() (err error) {
	if s.cfg.Store == "" {
		s.cfg.Store = "sqlite:" + filepath.Join(s.cfg.Dir, "buddyring.db")
	}
	for i := range max(1, s.cfg.Coordinators) {
		id := coordinatorName(i)
		c := &Coordinator{site: s, id: id, agents: netip.AddrPortFrom(s.lab.Host(id).Addr(), agentPort)}
		s.coordinators = append(s.coordinators, c)
		if c.admin, c.conn, err = s.open(rpc.RoleCoordinator); err != nil {
			return err
		}
	}
	s.leader = s.coordinators[0]
	if s.cfg.Prepare != nil {
		if err := s.cfg.Prepare(s); err != nil {
			return err
		}
	}
	for _, c := range s.coordinators {
		if err := c.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the coordinator, again on the same database and with the same state.
func (c *Coordinator) Start() error {
	s := c.site
	p, err := s.run(c.id, process.Program{
		Name: c.id, Path: filepath.Join(s.cfg.Bin, "buddyring-coordinator"),
		Args: slices.Concat([]string{
			"--store", s.cfg.Store, "--state-dir", filepath.Join(s.cfg.Dir, c.id), "--listen", c.agents.String(),
			"--advertise", c.agents.String(), "--http-listen", "127.0.0.1:7402", "--id", c.id,
		}, s.cfg.StoreFlags, s.cfg.security("coordinator-"+c.id)),
		Listeners: []process.Listener{{Name: "admin", Listener: c.admin}},
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.process = p
	return nil
}

// Move lets the coordinators that start from now on use another store.
func (s *Site) Move(store string) { s.cfg.Store = store }

// ID is its id.
func (c *Coordinator) ID() string { return c.id }

// Host is where it runs.
func (c *Coordinator) Host() *netlab.Host { return c.site.Host(c.id) }

// Address is where agents and routers reach it from inside.
func (c *Coordinator) Address() string { return c.agents.String() }

// Process is the running coordinator.
func (c *Coordinator) Process() *process.Process {
	c.site.mu.Lock()
	defer c.site.mu.Unlock()
	return c.process
}

// Status asks the coordinator itself, which may be a standby, for a second at most.
func (c *Coordinator) Status(ctx context.Context) (*coordinatorv1.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	return c.Admin().GetStatus(ctx, &coordinatorv1.GetStatusRequest{})
}

// Admin is its API for operators.
func (c *Coordinator) Admin() coordinatorv1.AdminServiceClient {
	return coordinatorv1.NewAdminServiceClient(c.conn)
}

// Coordinators are all coordinators.
func (s *Site) Coordinators() []*Coordinator { return s.coordinators }

// Leader waits until a coordinator says that it leads in an epoch after a given one,
// and returns it with its epoch. From then on Admin asks that one. Of several that say
// so the last epoch counts.
func (s *Site) Leader(ctx context.Context, after uint64) (leader *Coordinator, epoch uint64, err error) {
	epoch = after
	err = Await(ctx, func(ctx context.Context) error {
		for _, c := range s.coordinators {
			select {
			case <-c.Process().Done():
				continue // whoever calls its listener waits
			default:
			}
			status, err := c.Status(ctx)
			if err == nil && status.GetState() == coordinatorv1.LeaderState_LEADER_STATE_LEADER && status.GetEpoch() > epoch {
				leader, epoch = c, status.GetEpoch()
			}
		}
		if leader == nil {
			return fmt.Errorf("no coordinator leads in an epoch after %d", after)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader = leader
	return leader, epoch, nil
}

// Admin is the API for operators, of the coordinator that led when Leader was last
// asked, or else of the first.
func (s *Site) Admin() coordinatorv1.AdminServiceClient {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leader.Admin()
}

// StartCoordinator starts the first coordinator, again on the same database.
func (s *Site) StartCoordinator() error { return s.coordinators[0].Start() }

// Coordinator is the running first coordinator.
func (s *Site) Coordinator() *process.Process { return s.coordinators[0].Process() }

// CoordinatorHost is where the first coordinator runs.
func (s *Site) CoordinatorHost() *netlab.Host { return s.coordinators[0].Host() }

// AdminAddress is where buddyctl reaches the first coordinator from outside.
func (s *Site) AdminAddress() string { return s.coordinators[0].admin.Addr().String() }

// AgentsAddress is where agents and routers reach the first coordinator from inside.
func (s *Site) AgentsAddress() string { return s.coordinators[0].Address() }

// addresses are those of all coordinators, for agents and routers.
func (s *Site) addresses() string {
	all := make([]string, len(s.coordinators))
	for i, c := range s.coordinators {
		all[i] = c.Address()
	}
	return strings.Join(all, ",")
}
