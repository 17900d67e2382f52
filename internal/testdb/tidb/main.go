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
	"golang.org/x/sys/unix"
)

func main() {
	out, err := quiet()
	if err == nil {
		err = run(os.Stdin, out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "serve TiDB:", err)
		os.Exit(1)
	}
}

// quiet returns the standard output, and lets what TiDB logs there go nowhere.
func quiet() (*os.File, error) {
	out, err := unix.Dup(unix.Stdout)
	if err != nil {
		return nil, fmt.Errorf("keep standard output: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Dup2(int(null.Fd()), unix.Stdout); err != nil {
		return nil, fmt.Errorf("replace standard output: %w", err)
	}
	return os.NewFile(uintptr(out), "stdout"), nil
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
	// Only so does TiDB say when it listens.
	server.RunInGoTest, server.RunInGoTestChan = true, make(chan struct{})
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
