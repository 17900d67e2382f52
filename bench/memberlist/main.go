// Command memberlist is one member of a hashicorp/memberlist cluster with its
// LAN defaults. It prints whom it takes for a member from when on, as JSON
// lines, until it is killed.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// event is one line of output.
type event struct {
	At time.Time `json:"at"`
	// Kind is "ready", "join" or "leave". A member leaves when it is called dead.
	Kind string `json:"kind"`
	// Node is who joins or leaves; of "ready", the version of memberlist.
	Node string `json:"node"`
}

// printer prints events.
type printer struct {
	mu sync.Mutex
	*json.Encoder
}

func (p *printer) print(kind, node string) {
	if err := p.encode(event{time.Now(), kind, node}); err != nil {
		os.Exit(1) // whoever wanted to know is gone
	}
}

func (p *printer) encode(e event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Encode(e)
}

func (p *printer) NotifyJoin(n *memberlist.Node)  { p.print("join", n.Name) }
func (p *printer) NotifyLeave(n *memberlist.Node) { p.print("leave", n.Name) }
func (p *printer) NotifyUpdate(*memberlist.Node)  {}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "memberlist:", err)
		os.Exit(1)
	}
}

func run() error {
	cfg := memberlist.DefaultLANConfig()
	flag.StringVar(&cfg.Name, "name", "", "name of this member")
	flag.StringVar(&cfg.BindAddr, "bind", "", "its address")
	join := flag.String("join", "", "addresses of members, separated by commas")
	flag.Parse()
	out := &printer{Encoder: json.NewEncoder(os.Stdout)}
	cfg.AdvertiseAddr, cfg.Events, cfg.LogOutput = cfg.BindAddr, out, io.Discard
	list, err := memberlist.Create(cfg)
	if err != nil {
		return fmt.Errorf("create member %s: %w", cfg.Name, err)
	}
	if *join != "" {
		if _, err := list.Join(strings.Split(*join, ",")); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	out.print("ready", version())
	select {}
}

// version is memberlist's, as it was built in.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/hashicorp/memberlist" {
			return m.Version
		}
	}
	return "unknown"
}
