package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/buddyring/buddyring/buddyctl/output"
)

// downtime is how long the service of a host goes on after its server has left:
// clients that look it up by DNS may not know yet.
const downtime = 2 * time.Second

// finish says that all was true and what to try next, and keeps everything up
// if that was asked for.
func (r *run) finish(ctx context.Context, f *fleet) error {
	r.facts.OK = true
	r.facts.Seconds = ms(time.Since(r.began)) / 1000
	r.page.blank()
	r.page.print(output.Green, 0, fmt.Sprintf("All of this has really happened, in %.0f seconds.", r.facts.Seconds))
	r.page.blank()
	if !r.serve {
		r.page.text("Try it yourself: keep it running, and look at it from another shell.")
		r.page.blank()
		buddyctl := os.Args[0]
		r.page.commands(buddyctl+" demo --serve", buddyctl+" ring", buddyctl+" explain "+r.facts.Crash.Server)
		r.tellJSON()
		return nil
	}
	r.serving.Store(true)
	r.invite(f.dir)
	r.tellJSON()
	return r.stay(ctx, f)
}

// invite says what can be tried from another shell.
func (r *run) invite(dir string) {
	buddyctl, at := os.Args[0], r.facts.Listeners
	admin := ""
	if at.Admin != fmt.Sprintf("127.0.0.1:%d", adminPort) {
		admin = " --admin " + at.Admin
	}
	dns := netip.MustParseAddrPort(at.DNS)
	r.page.text("Everything stays up until Ctrl-C. Try these from another shell:")
	r.page.blank()
	r.page.commands(
		buddyctl+" ring"+admin,
		buddyctl+" explain "+r.facts.Crash.Server+admin,
		"grpcurl -plaintext "+at.Router+" buddyring.router.v1.RouterService/Pick",
		"curl http://"+at.RouterHTTP+"/v1/pools/"+pool,
		fmt.Sprintf("dig @%s -p %d %s.buddyring.internal", dns.Addr(), dns.Port(), pool),
		fmt.Sprintf(`%s rolling-restart%s --rejoins -- sh -c 'pkill -f "%s/$BUDDYRING_SERVER_ID "'`, buddyctl, admin, dir),
	)
	r.page.blank()
	r.page.aside(fmt.Sprintf("A server whose agent is told to end, as by the last one, leaves the pool. %.0f s later its service is "+
		"stopped, and both start again, as when a host reboots.", downtime.Seconds()))
	r.page.aside(fmt.Sprintf("admin %s, router %s, DNS %s; metrics at http://%s/metrics and http://%s/metrics; the table is %s",
		at.Admin, at.Router, at.DNS, at.CoordinatorHTTP, at.RouterHTTP, filepath.Join(dir, "buddyring.db")))
	if r.facts.Mode == modeNamespaces {
		r.page.aside("The servers' own addresses exist only in here. With --loopback they can be called from another shell: " +
			"by HTTP and, on the same port, by gRPC (health).")
	}
}

// hosts are what stay keeps up.
type hosts interface {
	// HasLeft reports whether a dead agent has made its server leave the pool.
	HasLeft(d death) bool
	// Reboot starts a host again whose server has left.
	Reboot(name string) error
}

// stay waits for Ctrl-C, tells which programs end meanwhile, and starts the hosts
// again whose servers have left.
func (r *run) stay(ctx context.Context, h hosts) error {
	due := make(chan string)
	for {
		select {
		case d := <-r.deaths:
			r.page.blank()
			if !h.HasLeft(d) {
				r.page.text(d.err.Error())
				continue
			}
			r.page.text(fmt.Sprintf("%s has left the pool, and its host reboots.", d.host))
			time.AfterFunc(downtime, func() {
				select {
				case due <- d.host:
				case <-ctx.Done():
				}
			})
		case name := <-due:
			if err := h.Reboot(name); err != nil {
				return err
			}
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return cause
			}
			return nil
		}
	}
}

// tellJSON prints the facts, if that was asked for.
func (r *run) tellJSON() {
	if !r.json {
		return
	}
	encoder := json.NewEncoder(r.w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(r.facts) // like the page, best effort
}
