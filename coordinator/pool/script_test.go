package pool_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

var update = flag.Bool("update", false, "rewrite the expected output of the scenario scripts; read every change before it is committed")

// TestScripts runs testdata/*.txt. A script is a list of blocks: commands, a
// line of dashes, and what has happened in the pool by then. Commands:
//
//	join ID [zone=Z] [rack=R] …  start a host and its agent, and settle
//	start ID                     start the agent again
//	run DURATION                 let time pass
//	crash ID …                   off the network at once, without a word
//	reboot ID                    back on a new boot
//	link ID down|up              the link only: agent and boot stay
//	kill ID | pause ID | continue ID   the agent alone
//	deaf ID | hear ID            none of its probes is answered
//	lie ID up|down|off           what it says of everybody
//	fickle ID on|off             it takes back what it says in rounds
//	icmp ID off|on               its kernel answers no probe
//	tcp ID off|on                no connect to it is answered
//	loss ID N                    N of ten probes to it are lost
//	leave ID [DURATION]          normal shutdown, with a drain that may take so long
//	drain ID [force]             operator's drain
//	resume ID                    and its end
//	routers hang|confirm         what they do when they are awaited
//	move ID                      the host gets another address
//	wipe ID                      the agent's state directory is lost
//	clone ID AS NAME             a second machine that says it is ID
//	set FIELD VALUE              pool setting
//	intent ID WISH               operator's wish
//	remove ID                    operator's removal
//	fail N                       the next N commits are rejected
//	restart                      kill the coordinator and start another one
//	dial open|shut               whether the coordinator's own connects are answered
//	service ID down|up           what its checks say
//	release [ID …]               operator's word that these are gone
//	row ID FIRST SECOND          somebody edits the buddies of a row by hand
//	lose ID                      somebody deletes a row by hand
//	stray ID FIRST SECOND        somebody inserts a row by hand
//	mum ID on|off                it acknowledges no assignment
//	replace ID BY [force]        operator's replacement of one by another
//	repair [check]               operator's repair of the ring, or what it would be
//	show ring|table|servers|explain ID|alarms|brake
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			runScript(t, file)
		})
	}
}

func runScript(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	var got strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(string(raw)), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		if got.Len() > 0 {
			got.WriteString("\n")
		}
		got.WriteString(commands + "\n----\n")
		for line := range strings.SplitSeq(commands, "\n") {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			w.execute(strings.Fields(line))
		}
		for _, l := range w.trace {
			got.WriteString(l + "\n")
		}
		w.trace = nil
	}
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(raw), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func (w *world) execute(words []string) {
	w.t.Helper()
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	h := func() *host { return w.host(arg(1)) }
	switch words[0] {
	case "join":
		w.join(words[1:])
	case "start":
		w.startAgent(h())
	case "run":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			w.t.Fatal(err)
		}
		w.run(d)
	case "crash":
		for _, id := range words[1:] {
			w.crash(w.host(id))
		}
	case "reboot":
		w.reboot(h())
	case "link":
		w.link(h(), arg(2) == "up")
	case "kill":
		w.killAgent(h())
	case "pause":
		h().paused = true
	case "continue":
		h().paused = false
	case "deaf":
		h().deaf = true
	case "hear":
		h().deaf = false
	case "lie":
		h().lie = map[string]pool.Sight{"up": up, "down": down}[arg(2)]
	case "fickle":
		h().fickle = arg(2) == "on"
	case "icmp":
		h().icmpOff = arg(2) == "off"
	case "tcp":
		h().tcpOff = arg(2) == "off"
	case "loss":
		n, err := strconv.Atoi(arg(2))
		if err != nil {
			w.t.Fatal(err)
		}
		h().loss = n
	case "leave":
		drain, _ := time.ParseDuration(arg(2)) // none is 0
		w.leave(h(), drain)
	case "drain":
		w.ops(func(c pool.Call) pool.Input {
			return pool.DrainServer{Call: c, ID: h().id, Force: arg(2) == "force"}
		})
	case "resume":
		w.ops(func(c pool.Call) pool.Input { return pool.ResumeServer{Call: c, ID: h().id} })
	case "routers":
		w.hanging = nil
		if arg(1) == "hang" {
			w.hanging = []member.ID{"r2"}
		}
	case "move":
		w.move(h())
	case "wipe":
		w.killAgent(h())
		h().inc = 0
	case "clone":
		w.clone(h(), arg(3))
	case "set":
		w.set(arg(1), arg(2))
	case "intent":
		w.intent(h(), arg(2))
	case "remove":
		w.ops(func(c pool.Call) pool.Input { return pool.RemoveServer{Call: c, ID: h().id} })
	case "fail":
		if _, err := fmt.Sscan(arg(1), &w.failNext); err != nil {
			w.t.Fatal(err)
		}
	case "restart":
		w.restart()
	case "dial":
		w.dialOpen = arg(1) == "open"
	case "service":
		w.service(h(), arg(2) == "down")
	case "release":
		w.release(words[1:])
	case "row", "stray", "lose":
		w.meddle(words)
	case "mum":
		h().mum = arg(2) == "on"
	case "repair":
		w.repair(arg(1) == "check")
	case "replace":
		w.ops(func(c pool.Call) pool.Input {
			return pool.ReplaceServer{Call: c, ID: h().id, By: member.ID(arg(2)), Force: arg(3) == "force"}
		})
	case "show":
		w.show(words[1:])
	default:
		w.t.Fatalf("unknown command %q", words[0])
	}
}

func (w *world) join(words []string) {
	var hosts []*host
	for _, word := range words {
		if key, value, ok := strings.Cut(word, "="); ok {
			for _, h := range hosts {
				if key == "zone" {
					h.zone = value
				} else {
					h.rack = value
				}
			}
			continue
		}
		hosts = append(hosts, w.host(word))
	}
	for _, h := range hosts {
		w.startAgent(h)
		w.run(100 * time.Millisecond)
	}
}

func (w *world) link(h *host, on bool) {
	if h.up == on {
		return
	}
	h.up = on
	if on && h.agent {
		w.hello(h)
	}
}

func (w *world) move(h *host) {
	w.killAgent(h)
	a := h.addr.As4()
	a[2]++
	old := &host{id: h.id, addr: h.addr}
	h.addr = netipFrom(a)
	w.hosts[h.id+"-old"] = old
}

func (w *world) clone(h *host, name string) {
	c := w.host(name)
	c.id, c.inc = h.id, h.inc
	w.startAgent(c)
}

func (w *world) set(field, value string) {
	w.ops(func(c pool.Call) pool.Input {
		return pool.UpdateSettings{Call: c, Edit: func(s member.Settings) (member.Settings, error) {
			if field == "mode" {
				var err error
				s.Mode, err = member.ParseMode(value)
				return s, err
			}
			if n, err := strconv.Atoi(value); err == nil {
				return setNumber(s, field, n)
			}
			d, err := time.ParseDuration(value)
			if err != nil {
				return s, member.Invalid(field, "%v", err)
			}
			switch field {
			case "removal_grace":
				s.RemovalGrace = d
			case "hold_down":
				s.HoldDown = d
			case "stall_tolerance":
				s.StallTolerance = d
			default:
				return s, member.Invalid(field, "unknown")
			}
			return s, nil
		}}
	})
}

func setNumber(s member.Settings, field string, n int) (member.Settings, error) {
	at := map[string]*int{
		"brake_least": &s.BrakeLeast, "brake_percent": &s.BrakePercent, "brake_zone_percent": &s.BrakeZonePercent,
		"floor_percent": &s.FloorPercent, "held_percent": &s.HeldPercent,
	}[field]
	if at == nil {
		return s, member.Invalid(field, "unknown")
	}
	*at = n
	return s, nil
}

// service lets the checks of an agent find something new.
func (w *world) service(h *host, isDown bool) {
	h.checked = &pool.ServiceHealth{Session: h.session, Incarnation: h.inc, Down: isDown}
	if isDown {
		h.checked.Text = "tcp://:80: refused"
	}
	w.step(*h.checked)
}

func (w *world) release(ids []string) {
	w.ops(func(c pool.Call) pool.Input {
		in := pool.ReleaseBrake{Call: c}
		for _, id := range ids {
			in.IDs = append(in.IDs, member.ID(id))
		}
		return in
	})
}

func (w *world) showBrake() {
	st := w.m.Brake()
	w.trace = append(w.trace, fmt.Sprintf("brake: %d suspects of %d allowed; floor: %d lost of %d allowed; %d members of %d",
		st.Safety.Suspects, st.Safety.BrakeLimit, st.Safety.Lost, st.Safety.FloorLimit, st.Safety.Members, st.Safety.ReferenceSize))
	for _, z := range st.Zones {
		w.trace = append(w.trace, fmt.Sprintf("zone %s: %d suspects of %d allowed, %d members", z.Zone, z.Suspects, z.Limit, z.Size))
	}
	for _, s := range st.Stops {
		w.trace = append(w.trace, fmt.Sprintf("%s since %.3f: %s", s.Rule, s.Since.Sub(w.start).Seconds(), s.Reason))
	}
	for _, h := range st.Held {
		w.trace = append(w.trace, fmt.Sprintf("held: %s, suspect since %.3f", h.ID, h.Since.Sub(w.start).Seconds()))
	}
	for _, r := range st.Released {
		w.trace = append(w.trace, fmt.Sprintf("released: %s until %.3f", r.ID, r.Until.Sub(w.start).Seconds()))
	}
}

func (w *world) intent(h *host, wish string) {
	parsed, err := member.ParseWish(wish)
	if err != nil {
		w.t.Fatal(err)
	}
	w.ops(func(c pool.Call) pool.Input { return pool.SetIntent{Call: c, ID: h.id, Wish: parsed} })
}

// ops runs an operator's command and logs how it was answered.
func (w *world) ops(in func(pool.Call) pool.Input) {
	token := w.command(in, pool.Call{Reason: "because"})
	w.run(50 * time.Millisecond)
	if err := w.replies[token].Err; err != nil {
		w.log("reply: %v", err)
	}
}

// meddle changes the table behind the coordinator's back.
func (w *world) meddle(words []string) {
	id := member.ID(words[1])
	if words[0] == "lose" {
		delete(w.table.rows, id)
		return
	}
	row, known := w.table.rows[id]
	if known == (words[0] == "stray") {
		w.t.Fatalf("%s has a row: %v", id, known)
	}
	if !known {
		h := w.host(words[1])
		row = member.Server{
			ID: id, Phase: member.PhaseActive, Incarnation: 1, InstanceID: "by hand", BootID: "by hand",
			Spec: member.Spec{ProbeAddresses: []netip.Addr{h.addr}, Weight: 100},
		}
	}
	row.First, row.Second = member.ID(words[2]), member.ID(words[3])
	w.table.rows[id] = row
}

// repair logs what a repair has done, or would do.
func (w *world) repair(check bool) {
	token := w.command(func(c pool.Call) pool.Input {
		return pool.RepairRing{Call: c, Rows: w.table.load().Servers, At: w.table.at}
	}, pool.Call{Reason: "because", ValidateOnly: check})
	w.run(50 * time.Millisecond)
	r := w.replies[token]
	for _, repair := range r.Repairs {
		w.log("%s %s: %s", repair.Kind, repair.ID, repair.Text)
	}
	if r.Err != nil {
		w.log("reply: %v", r.Err)
	} else {
		w.log("at revision %d: %d repairs", r.Revision, len(r.Repairs))
	}
}

func (w *world) show(words []string) {
	switch words[0] {
	case "table":
		for _, s := range w.table.load().Servers {
			w.trace = append(w.trace, fmt.Sprintf("%s: first %s, second %s, incarnation %d", s.ID, orNone(s.First), orNone(s.Second), s.Incarnation))
		}
	case "ring":
		for _, s := range w.m.Ring() {
			w.trace = append(w.trace, fmt.Sprintf("%s: first %s, second %s", s.ID, orNone(s.First), orNone(s.Second)))
		}
	case "servers":
		for _, s := range w.m.Servers() {
			line := fmt.Sprintf("%s %s incarnation %d", s.Server.ID, s.Server.Phase, s.Server.Incarnation)
			if s.Suspect {
				line += " suspect"
			}
			if !s.Connected {
				line += " without an agent"
			}
			if len(s.Temporary) > 0 {
				line += fmt.Sprintf(" also watched by %v", s.Temporary)
			}
			if s.WaitingFor != "" {
				line += "; waits for " + s.WaitingFor
			}
			w.trace = append(w.trace, line)
		}
	case "explain":
		w.showDecisions(member.ID(words[1]))
	case "brake":
		w.showBrake()
	case "alarms":
		for _, a := range w.m.Alarms() {
			w.trace = append(w.trace, fmt.Sprintf("%s %s: %s", a.Name, a.Subject, a.Text))
		}
	}
}

func (w *world) showDecisions(id member.ID) {
	decisions := w.m.Decisions(id)
	if len(decisions) == 0 {
		w.trace = append(w.trace, "nothing was ever decided about "+string(id))
		return
	}
	d := decisions[0]
	w.trace = append(w.trace, fmt.Sprintf("%s [%s, revision %d]", d.Explanation.Text, d.Explanation.Rule, d.Revision))
	for _, m := range d.Explanation.Timeline {
		line := fmt.Sprintf("  +%-6v %s", m.At, m.Kind)
		for _, part := range []string{m.Who, m.Role, m.Result, m.Text} {
			if part != "" {
				line += " " + part
			}
		}
		if m.Sent > 0 {
			line += fmt.Sprintf(" %d/%d lost", m.Lost, m.Sent)
		}
		w.trace = append(w.trace, line)
	}
	for _, r := range d.Explanation.Rows {
		w.trace = append(w.trace, fmt.Sprintf("  row %s: %s -> %s", r.ID, buddiesText(r.Before), buddiesText(r.After)))
	}
}

func buddiesText(b *member.Buddies) string {
	if b == nil {
		return "none"
	}
	return fmt.Sprintf("(%s, %s)", orNone(b.First), orNone(b.Second))
}

func orNone(id member.ID) string {
	if id == "" {
		return "nobody"
	}
	return string(id)
}
