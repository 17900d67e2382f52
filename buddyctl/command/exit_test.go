package command_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// answering is a network with one coordinator that fails every call with err.
func answering(t *testing.T, err error) *network {
	t.Helper()
	n, admin := &network{}, busyAdmin()
	admin.fail = func(string) error { return err }
	n.serve(t, "127.0.0.1:7401", admin, nil)
	n.serve(t, "127.0.0.1:7500", nil, &fakeRouter{})
	return n
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	refused := &member.RefusedError{Rule: "floor", Reason: "2 of 4 left"}
	for name, c := range map[string]struct {
		err    error
		args   []string
		code   int
		stderr string
	}{
		"done":              {nil, []string{"remove", "db-1"}, 0, ""},
		"unknown server":    {member.ErrNotFound, []string{"servers", "get", "db-1"}, 1, "not found"},
		"twin":              {member.ErrAlreadyExists, []string{"pools", "create", "edge"}, 1, "already exists"},
		"stale":             {member.ErrStale, []string{"remove", "db-1"}, 1, "stale"},
		"forbidden":         {member.ErrPermission, []string{"status"}, 1, "permission"},
		"nothing to pick":   {nil, []string{"pick"}, 1, "no server that may get work"},
		"nothing to list":   {nil, []string{"pick", "--all"}, 1, "no server may get work"},
		"server's usage":    {member.Invalid("spec.weight", "is too large"), []string{"servers", "update", "db-1", "--weight", "20000"}, 2, "spec.weight: is too large"},
		"unknown command":   {nil, []string{"servrs"}, 2, `unknown command "servrs"`},
		"unknown below":     {nil, []string{"servers", "sync"}, 2, `unknown command "sync"`},
		"unknown flag":      {nil, []string{"status", "--colour"}, 2, "--colour"},
		"missing argument":  {nil, []string{"explain"}, 2, "SERVER: is missing"},
		"second missing":    {nil, []string{"intent", "db-1"}, 2, "WISH: is missing"},
		"one too many":      {nil, []string{"explain", "db-1", "db-2"}, 2, `"db-2" is one too many`},
		"bad format":        {nil, []string{"status", "-o", "xml"}, 2, "xml"},
		"bad enum":          {nil, []string{"intent", "db-1", "gone"}, 2, "active, drain, maintenance, banned"},
		"bad phase":         {nil, []string{"servers", "--phase", "up"}, 2, "joining"},
		"bad policy":        {nil, []string{"pick", "--policy", "best"}, 2, "p2c, round_robin, random, maglev"},
		"bad label":         {nil, []string{"servers", "--label", "os"}, 2, "KEY=VALUE"},
		"bad last":          {nil, []string{"events", "--last", "-1"}, 2, "negative"},
		"bad for":           {nil, []string{"intent", "db-1", "drain", "--for", "-1h"}, 2, "for: "},
		"empty change":      {nil, []string{"servers", "update", "db-1"}, 2, "nothing to change"},
		"contradiction":     {nil, []string{"pick", "--all", "--policy", "random"}, 2, "all"},
		"key for all":       {nil, []string{"pick", "--all", "--key", "alice"}, 2, "all"},
		"bad address":       {nil, []string{"status", "--admin", "nowhere"}, 2, "HOST:PORT"},
		"bad TLS file":      {nil, []string{"status", "--tls-cert", "/nowhere", "--tls-key", "/nowhere", "--tls-ca", "/nowhere"}, 2, "/nowhere"},
		"nobody there":      {nil, []string{"status", "--admin", "127.0.0.1:1"}, 3, "cannot reach a coordinator at 127.0.0.1:1: connection refused; is it running? try --admin HOST:PORT"},
		"no router there":   {nil, []string{"pick", "--router", "127.0.0.1:1"}, 3, "cannot reach a router at 127.0.0.1:1: connection refused; is it running? try --router HOST:PORT"},
		"database away":     {fmt.Errorf("commit: %w", member.ErrUnavailable), []string{"remove", "db-1"}, 3, "no coordinator can do this now at 127.0.0.1:7401: commit: unavailable"},
		"database refuses":  {fmt.Errorf("%w: dial tcp 10.0.0.5:3306: connect: connection refused", member.ErrUnavailable), []string{"remove", "db-1"}, 3, "connection refused\n"},
		"standby":           {&member.NotLeaderError{Leader: "10.0.0.9:7400"}, []string{"remove", "db-1"}, 3, "10.0.0.9:7400"},
		"refused":           {refused, []string{"remove", "db-1"}, 4, "refused by floor: 2 of 4 left"},
		"drain refused":     {refused, []string{"drain", "db-1"}, 4, "refused by floor: 2 of 4 left"},
		"drain's deadline":  {context.DeadlineExceeded, []string{"drain", "db-1"}, 5, "deadline"},
		"bad wait":          {nil, []string{"drain", "db-1", "--wait", "-1s"}, 2, "wait: "},
		"no command":        {nil, []string{"rolling-restart"}, 2, "arg"},
		"none at once":      {nil, []string{"rolling-restart", "--parallel", "0", "--", "true"}, 2, "parallel"},
		"server's deadline": {context.DeadlineExceeded, []string{"remove", "db-1"}, 5, "deadline"},
		"wrong port":        {nil, []string{"status", "--admin", "127.0.0.1:7500"}, 1, "is this its port for admin?"},
		"secret failure":    {errors.New("password of the database"), []string{"status"}, 1, "internal error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := answering(t, c.err).run(t, c.args...)
			if r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("exit %d, want %d; stderr %q, want %q in it", r.code, c.code, r.stderr, c.stderr)
			}
			if c.code != 0 && !strings.HasPrefix(r.stderr, "buddyctl: ") {
				t.Errorf("stderr %q does not say who speaks", r.stderr)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, admin := &network{}, busyAdmin()
		held := make(chan struct{})
		defer close(held)
		admin.fail = func(string) error { <-held; return nil }
		n.serve(t, "127.0.0.1:7401", admin, nil)
		r := n.run(t, "status")
		if r.code != 5 || !strings.Contains(r.stderr, "no answer from a coordinator at 127.0.0.1:7401") {
			t.Errorf("exit %d, stderr %q", r.code, r.stderr)
		}
		r = n.run(t, "remove", "db-1", "--request-id", "r-1")
		if r.code != 5 || !strings.Contains(r.stderr, "it may have happened: repeat it with --request-id r-1") {
			t.Errorf("exit %d, stderr %q", r.code, r.stderr)
		}
	})
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	n, admin := &network{}, busyAdmin()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	admin.fail = func(string) error { stop(); <-ended; return nil }
	n.serve(t, "127.0.0.1:7401", admin, nil)
	r := n.runIn(ctx, "status")
	close(ended)
	if r.code != 1 || r.stderr != "buddyctl: interrupted\n" {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
}

func TestCheckSaysNo(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"table", "json"} {
		n, admin := &network{}, busyAdmin()
		admin.check.Consistent = new(false)
		admin.check.Problems[0].Kind = "asymmetric"
		n.serve(t, "127.0.0.1:7401", admin, nil)
		r := n.run(t, "check", "-o", format)
		if r.code != 1 || r.stderr != "buddyctl: the ring is not consistent\n" || !strings.Contains(r.stdout, "asymmetric") {
			t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
		}
	}
}

func TestAddressesAreTriedInOrder(t *testing.T) {
	t.Parallel()
	n, standby, leader := &network{}, busyAdmin(), busyAdmin()
	standby.fail = func(string) error { return &member.NotLeaderError{} }
	n.serve(t, "10.0.0.1:7401", standby, nil)
	n.serve(t, "10.0.0.2:7401", leader, nil)
	r := n.run(t, "remove", "db-1", "--admin", "127.0.0.1:1,10.0.0.1:7401,10.0.0.2:7401")
	if r.code != 0 || r.stdout != "removed db-1 at revision 43\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	if len(standby.requests) != 1 || len(leader.requests) != 1 {
		t.Errorf("the standby heard %d requests, the leader %d", len(standby.requests), len(leader.requests))
	}
	r = n.run(t, "remove", "db-1", "--admin", "10.0.0.1:7401,127.0.0.1:1")
	if want := "no coordinator can do this now at 10.0.0.1:7401: not the leader"; r.code != 3 || !strings.Contains(r.stderr, want) {
		t.Errorf("exit %d, stderr %q, want %q in it", r.code, r.stderr, want)
	}
	r = n.run(t, "status", "--admin", "127.0.0.1:1,127.0.0.1:2")
	if r.code != 3 || !strings.Contains(r.stderr, "at 127.0.0.1:1: connection refused; at 127.0.0.1:2: connection refused") {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
}

// The leader is preferred; where there is none, a standby's answer has to do.
func TestTheLeaderIsAsked(t *testing.T) {
	t.Parallel()
	n, standby, leader := &network{}, busyAdmin(), busyAdmin()
	standby.standby = true
	n.serve(t, "10.0.0.1:7401", standby, nil)
	n.serve(t, "10.0.0.2:7401", leader, nil)
	r := n.run(t, "status", "--admin", "10.0.0.1:7401,10.0.0.2:7401")
	if r.code != 0 || r.stderr != "" || len(leader.requests) != 1 {
		t.Errorf("exit %d, stderr %q, the leader heard %d requests", r.code, r.stderr, len(leader.requests))
	}
	for _, admin := range []string{"10.0.0.1:7401", "10.0.0.1:7401,127.0.0.1:1", "127.0.0.1:1,10.0.0.1:7401"} {
		r = n.run(t, "status", "--admin", admin)
		if r.code != 0 || !strings.Contains(r.stdout, "c-1 leads") || !strings.Contains(r.stderr, "a standby answered, at 10.0.0.1:7401") {
			t.Errorf("--admin %s: exit %d, stdout %q, stderr %q", admin, r.code, r.stdout, r.stderr)
		}
	}
}

// A standby does not know who is suspect, which is not nobody.
func TestStandbyKnowsNoSuspects(t *testing.T) {
	t.Parallel()
	for _, standby := range []bool{false, true} {
		n, admin := &network{}, busyAdmin()
		admin.standby = standby
		n.serve(t, "10.0.0.1:7401", admin, nil)
		r := n.run(t, "status", "--admin", "10.0.0.1:7401")
		_, grid, _ := strings.Cut(r.stdout, "\n\n")
		lines := strings.Split(grid, "\n")
		at := strings.Index(lines[0], "SUSPECT")
		if r.code != 0 || at < 0 || len(lines) < 2 {
			t.Fatalf("exit %d, stdout %q", r.code, r.stdout)
		}
		if left := strings.TrimSpace(lines[1][at:at+len("SUSPECT")]) == "-"; left != standby {
			t.Errorf("of a standby: %v; it says\n%s", standby, grid)
		}
	}
}

// A router that is out of touch is told from a pool that is not served.
func TestPickSaysWhyNobodyConfirms(t *testing.T) {
	t.Parallel()
	for want, notServed := range map[string]*bool{"the router does not reach a coordinator": nil, "the coordinator does not serve the pool": new(true)} {
		n, router := &network{}, busyRouter()
		router.stale, router.notServed = true, notServed
		n.serve(t, "127.0.0.1:7500", nil, router)
		if r := n.run(t, "pick"); r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("exit %d, stdout %q, want %q", r.code, r.stdout, want)
		}
	}
}

// A standby that has taken the lead while others were asked is not called one.
func TestTheStandbyLeadsMeanwhile(t *testing.T) {
	t.Parallel()
	n, standby := &network{}, busyAdmin()
	standby.standby = true
	asked := 0
	standby.fail = func(string) error {
		asked++
		standby.standby = false
		return nil
	}
	n.serve(t, "10.0.0.2:7401", standby, nil)
	r := n.run(t, "status", "--admin", "127.0.0.1:1,10.0.0.2:7401")
	if r.code != 0 || r.stderr != "" || asked != 2 {
		t.Errorf("exit %d after %d calls, stderr %q", r.code, asked, r.stderr)
	}
}

func TestASlowAddressLeavesTimeForTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, slow, quick := &network{}, busyAdmin(), busyAdmin()
		held := make(chan struct{})
		defer close(held)
		slow.fail = func(string) error { <-held; return nil }
		n.serve(t, "10.0.0.1:7401", slow, nil)
		n.serve(t, "10.0.0.2:7401", quick, nil)
		start := time.Now()
		r := n.run(t, "status", "--admin", "10.0.0.1:7401,10.0.0.2:7401", "--timeout", "8s")
		if took := time.Since(start); r.code != 0 || took != 4*time.Second {
			t.Errorf("exit %d after %s, stderr %q", r.code, took, r.stderr)
		}
	})
}
