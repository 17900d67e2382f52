package testdb

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// tidbVariable names the program that `make test-tidb` builds.
const tidbVariable = "BUDDYRING_TIDB"

// TiDB returns the store URL of a fresh, empty database on the TiDB that all tests
// of this process share. The database is dropped when the test ends.
func TiDB(t testing.TB) string {
	t.Helper()
	server, err := tidb()
	if err != nil {
		t.Fatalf("start TiDB: %v", err)
	}
	address := server.address
	name := fmt.Sprintf("test%d", tidbCount.Add(1))
	if err := tidbDo(t.Context(), address, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tidbDo(context.Background(), address, "DROP DATABASE "+name); err != nil {
			t.Error(err)
		}
	})
	return "mysql://root@" + address + "/" + name
}

//nolint:gochecknoglobals // one server per test process is the purpose; it ends with the process
var (
	tidb      = sync.OnceValues(startTiDB)
	tidbCount atomic.Int64
)

// tidbServer is a TiDB that listens at an address, and ends with its standard
// input.
type tidbServer struct {
	address string
	life    io.Closer
}

func startTiDB() (*tidbServer, error) {
	program := os.Getenv(tidbVariable)
	if program == "" {
		return nil, errors.New(tidbVariable + " names no program: run `make test-tidb`")
	}
	cmd := exec.Command(program) //nolint:gosec,noctx // our own program, which lives until its standard input closes
	cmd.Stderr = os.Stderr
	life, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read address: %w", err)
	}
	server := &tidbServer{strings.TrimSpace(line), life}
	// TiDB takes READ ONLY as a word without meaning, for all its reads are of
	// snapshots, and leaves CHECK alone, unless it is told to.
	for _, setting := range []string{"tidb_enable_noop_functions", "tidb_enable_check_constraint"} {
		if err := tidbDo(context.Background(), server.address, "SET GLOBAL "+setting+" = ON"); err != nil {
			return nil, errors.Join(err, life.Close())
		}
	}
	return server, nil
}

func tidbDo(ctx context.Context, address, statement string) (err error) {
	db, err := sql.Open("mysql", "root@tcp("+address+")/")
	if err != nil {
		return fmt.Errorf("open TiDB: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
