package netlab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// limit is a bound of the kernel's neighbour tables. All network namespaces
// share one table per family, so that a lab of some hundred hosts overflows
// what is plenty for one host; the kernel then drops packets in silence.
type limit struct {
	path string
	// least is what a lab needs.
	least int
	// before is what it was, and 0 if it was left as it was.
	before int
}

// neighboursPerHost is how many neighbours a host is expected to have: its
// buddies, the coordinator, and whom it has been asked about lately.
const neighboursPerHost = 64

// neighbourLimits are those that a lab needs, the highest first: the kernel
// does not care, but at no moment is a lower bound above a higher one.
func neighbourLimits(hosts int, ipv6 bool) []limit {
	families := []string{"ipv4"}
	if ipv6 {
		families = append(families, "ipv6")
	}
	var limits []limit
	for _, family := range families {
		path := "/proc/sys/net/" + family + "/neigh/default/gc_thresh"
		need := hosts * neighboursPerHost
		limits = append(limits, limit{path: path + "3", least: 4 * need}, limit{path: path + "2", least: 2 * need},
			limit{path: path + "1", least: need})
	}
	return limits
}

// enough is how many hosts fit into the kernel's defaults.
const enough = 40

// widen raises the limits that are too low. They belong to the machine, not to
// the lab; narrow gives them back.
func widen(limits []limit) error {
	for i := range limits {
		l := &limits[i]
		now, err := l.read()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // only the machine's first network namespace shows them
		case err != nil:
			return fmt.Errorf("read limit of neighbours: %w", err)
		case now >= l.least:
			continue
		}
		if err := l.write(l.least); err != nil {
			return fmt.Errorf("raise limit of neighbours from %d to %d, which a lab of this size needs: %w", now, l.least, err)
		}
		l.before = now
	}
	return nil
}

// narrow puts the limits back that widen has raised, unless a larger lab has
// raised them further.
func narrow(limits []limit) error {
	var errs []error
	for i := range limits {
		l := &limits[i]
		if l.before == 0 {
			continue
		}
		if now, err := l.read(); err != nil || now != l.least {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, l.write(l.before))
	}
	return errors.Join(errs...)
}

func (l *limit) read() (int, error) {
	text, err := os.ReadFile(l.path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func (l *limit) write(value int) error {
	return os.WriteFile(l.path, []byte(strconv.Itoa(value)), 0)
}
