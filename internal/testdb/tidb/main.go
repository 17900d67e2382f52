// Command tidb serves an empty TiDB from memory, for tests: MySQL 8 as another
// engine understands it, on a store that is not InnoDB. It prints the address at
// which it listens, and ends when its standard input does. It is a module of its
// own because TiDB brings some 600 others, among them an older gRPC.
package main

import (
	"fmt"
	"io"
	"net"
	"os"

	"github.com/pingcap/log"
	"github.com/pingcap/tidb/pkg/config"
	"github.com/pingcap/tidb/pkg/server"
	"github.com/pingcap/tidb/pkg/session"
	"github.com/pingcap/tidb/pkg/store/mockstore"
	"github.com/pingcap/tidb/pkg/util/logutil"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "serve TiDB:", err)
		os.Exit(1)
	}
}

func run(life io.Reader, out io.Writer) error {
	if err := logutil.InitLogger(logutil.NewLogConfig("error", "text", "", "", logutil.EmptyFileLogConfig, false,
		func(c *log.Config) { c.DisableErrorVerbose = true })); err != nil {
		return fmt.Errorf("start log: %w", err)
	}
	kv, err := mockstore.NewMockStore()
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	domain, err := session.BootstrapSession(kv)
	if err != nil {
		return fmt.Errorf("make system tables: %w", err)
	}
	cfg := config.NewConfig()
	cfg.Host, cfg.Port, cfg.Status.ReportStatus, cfg.Socket = "127.0.0.1", 0, false, ""
	s, err := server.NewServer(cfg, server.NewTiDBDriver(kv))
	if err != nil {
		return fmt.Errorf("make server: %w", err)
	}
	s.SetDomain(domain)
	failed := make(chan error, 1)
	go func() { failed <- s.Run(domain) }()
	<-server.RunInGoTestChan
	if _, err := fmt.Fprintln(out, s.ListenAddr().(*net.TCPAddr)); err != nil {
		return fmt.Errorf("say the address: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, life)
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("run server: %w", err)
	case <-ended:
		return nil // whatever it holds goes with the process
	}
}
