package detect

import (
	"fmt"
	"io"
	"strings"
)

// CostReport is what a pool at rest costs.
type CostReport struct {
	Setting
	Strain Strain `json:"strain"`
	// Lasted is over how many seconds it was measured.
	Lasted float64 `json:"lasted_s"`
	// Agents are all agents; the coordinator serves all of them.
	Agents      Spread `json:"agent"`
	Coordinator Usage  `json:"coordinator"`
	// Probing is the traffic of echo requests and replies per server, On its wire
	// everything that passes its network interface, in kilobytes a second.
	ProbingIn  float64 `json:"probing_in_kb_s"`
	ProbingOut float64 `json:"probing_out_kb_s"`
	WireIn     float64 `json:"wire_in_kb_s"`
	WireOut    float64 `json:"wire_out_kb_s"`
}

// Usage is what a program uses: percent of a core, and MiB of resident memory.
type Usage struct {
	Core     float64 `json:"core_percent"`
	Resident float64 `json:"resident_mib"`
}

// Spread is the mean and the largest of many.
type Spread struct {
	Mean Usage `json:"mean"`
	Max  Usage `json:"max"`
}

// usage is what has been used up to a moment, per server in the order of
// servers.
type usage struct {
	agents      []processUsage
	traffic     []traffic
	coordinator processUsage
}

// processUsage is processor time so far and resident memory now, in bytes.
type processUsage struct {
	seconds  float64
	resident uint64
}

// traffic counts bytes on the wire, with Ethernet's headers, and echo packets.
type traffic struct{ in, out, echoesIn, echoesOut uint64 }

// echoBytes is the size of an IPv4 packet with an echo request or reply: headers
// of 20 and 8 bytes and the 24 that an agent sends in it.
const echoBytes = 20 + 8 + 24

// summarize takes the figures from what was used at both ends of a time.
func (r *CostReport) summarize(before, after usage, lasted float64) {
	n := float64(len(after.agents))
	for i := range after.agents {
		u := used(before.agents[i], after.agents[i], lasted)
		r.Agents.Mean.Core += u.Core / n
		r.Agents.Mean.Resident += u.Resident / n
		r.Agents.Max.Core = max(r.Agents.Max.Core, u.Core)
		r.Agents.Max.Resident = max(r.Agents.Max.Resident, u.Resident)
		b, a := before.traffic[i], after.traffic[i]
		const kilo = 1000
		r.ProbingIn += float64(a.echoesIn-b.echoesIn) * echoBytes / kilo / lasted / n
		r.ProbingOut += float64(a.echoesOut-b.echoesOut) * echoBytes / kilo / lasted / n
		r.WireIn += float64(a.in-b.in) / kilo / lasted / n
		r.WireOut += float64(a.out-b.out) / kilo / lasted / n
	}
	r.Coordinator = used(before.coordinator, after.coordinator, lasted)
	for _, x := range []*float64{
		&r.Agents.Mean.Core, &r.Agents.Mean.Resident, &r.Agents.Max.Core, &r.Agents.Max.Resident,
		&r.Coordinator.Core, &r.Coordinator.Resident, &r.ProbingIn, &r.ProbingOut, &r.WireIn, &r.WireOut,
	} {
		*x = round(*x, 2)
	}
}

func used(before, after processUsage, lasted float64) Usage {
	const percent, mebi = 100, 1 << 20
	return Usage{Core: percent * (after.seconds - before.seconds) / lasted, Resident: float64(after.resident) / mebi}
}

// Write writes the report for people, as Markdown.
func (r CostReport) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n\n", r.text(fmt.Sprintf("A pool at rest for %.0f s.", r.Lasted)), r.Strain.text())
	rows := [][]string{{"", "core", "resident"}}
	for _, row := range []struct {
		name string
		Usage
	}{{"agent, mean", r.Agents.Mean}, {"agent, largest", r.Agents.Max}, {"coordinator", r.Coordinator}} {
		rows = append(rows, []string{row.name, fmt.Sprintf("%.2f %%", row.Core), fmt.Sprintf("%.1f MiB", row.Resident)})
	}
	b.WriteString(table(rows))
	b.WriteString("\n")
	b.WriteString(table([][]string{
		{"per server", "in", "out"},
		{"probing, IPv4 packets", fmt.Sprintf("%.2f KB/s", r.ProbingIn), fmt.Sprintf("%.2f KB/s", r.ProbingOut)},
		{"everything on the wire", fmt.Sprintf("%.2f KB/s", r.WireIn), fmt.Sprintf("%.2f KB/s", r.WireOut)},
	}))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
