package detect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buddyring/buddyring/internal/netlab"
)

// CostConfig is a measurement of what a pool at rest costs.
type CostConfig struct {
	PoolConfig
	// Lasts is how long it is measured.
	Lasts time.Duration
}

// Cost makes the measurement. It must run inside netlab.Enter.
func Cost(ctx context.Context, cfg CostConfig) (r CostReport, err error) {
	if cfg.Lasts <= 0 {
		return CostReport{}, errors.New("measure cost: the duration is missing")
	}
	pool, err := newPool(ctx, cfg.PoolConfig)
	if err != nil {
		return CostReport{}, err
	}
	defer func() { err = errors.Join(err, pool.close()) }()
	if r.Setting, err = pool.setting(); err != nil {
		return CostReport{}, err
	}
	var strain monitor
	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	group, watchCtx := errgroup.WithContext(watchCtx)
	group.Go(func() error { return strain.watch(watchCtx) })
	begun := time.Now()
	before, err := pool.usage()
	if err != nil {
		return CostReport{}, err
	}
	if err := pause(ctx, cfg.Lasts); err != nil {
		return CostReport{}, err
	}
	lasted := time.Since(begun)
	after, err := pool.usage()
	stop()
	if err := errors.Join(err, group.Wait()); err != nil {
		return CostReport{}, err
	}
	r.Lasted, r.Strain = seconds(lasted), strain.strain()
	r.summarize(before, after, lasted.Seconds())
	return r, nil
}

// usage reads what every program and every server's host has used so far.
func (p *pool) usage() (u usage, err error) {
	for _, server := range p.servers {
		process, err := readProcess(p.agents[server].Pid())
		if err != nil {
			return usage{}, err
		}
		traffic, err := readTraffic(p.site.Host(server))
		if err != nil {
			return usage{}, err
		}
		u.agents, u.traffic = append(u.agents, process), append(u.traffic, traffic)
	}
	u.coordinator, err = readProcess(p.site.Coordinator().Pid())
	return u, err
}

// ticksPerSecond is the kernel's unit of processor time in /proc: USER_HZ, which
// is 100 on every architecture that Go knows.
const ticksPerSecond = 100

func readProcess(pid int) (u processUsage, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return processUsage{}, fmt.Errorf("read usage: %w", err)
	}
	// The name of the program, in parentheses, may contain anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const userTime, systemTime, resident = 11, 12, 21
	var ticks, pages uint64
	for i, to := range map[int]*uint64{userTime: &ticks, systemTime: &ticks, resident: &pages} {
		n, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			return processUsage{}, fmt.Errorf("read usage: %s: %w", dir, err)
		}
		*to += n
	}
	return processUsage{seconds: float64(ticks) / ticksPerSecond, resident: pages * uint64(os.Getpagesize())}, nil
}

func readTraffic(h *netlab.Host) (t traffic, err error) {
	err = h.Do(func() error {
		devices, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(devices)) {
			name, counters, _ := strings.Cut(strings.TrimSpace(line), ":")
			if fields := strings.Fields(counters); name == "eth0" {
				const bytesIn, bytesOut = 0, 8
				_, errIn := fmt.Sscan(fields[bytesIn], &t.in)
				_, errOut := fmt.Sscan(fields[bytesOut], &t.out)
				return errors.Join(errIn, errOut, t.readEchoes())
			}
		}
		return errors.New("it has no eth0")
	})
	if err != nil {
		return traffic{}, fmt.Errorf("read traffic of %s: %w", h.Name(), err)
	}
	return t, nil
}

// readEchoes reads the counters of ICMP in the network namespace of the calling
// thread: a line of names, and one of numbers.
func (t *traffic) readEchoes() error {
	text, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case fields[0] != "Icmp:":
			continue
		case names == nil:
			names = fields
			continue
		}
		for i, name := range names {
			switch name {
			case "InEchos", "InEchoReps":
				err = errors.Join(err, add(&t.echoesIn, fields[i]))
			case "OutEchos", "OutEchoReps":
				err = errors.Join(err, add(&t.echoesOut, fields[i]))
			}
		}
	}
	return err
}

func add(to *uint64, number string) error {
	n, err := strconv.ParseUint(number, 10, 64)
	*to += n
	return err
}
