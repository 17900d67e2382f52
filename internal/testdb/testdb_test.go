//go:build mariadb

package testdb_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/testdb"
)

func TestDatabasesAreFreshAndApart(t *testing.T) {
	t.Parallel()
	a, b := testdb.MariaDB(t), testdb.MariaDB(t)
	if a == b {
		t.Errorf("two databases have the same URL %s", a)
	}
}

func TestKilledServerKeepsItsData(t *testing.T) {
	t.Parallel()
	s := testdb.Start(t)
	s.Exec(t, "CREATE DATABASE kept")
	s.Exec(t, "CREATE TABLE kept.x (n INT PRIMARY KEY) ENGINE = InnoDB")
	s.Exec(t, "INSERT INTO kept.x (n) VALUES (42)")
	s.Kill(t)
	s.Restart(t)
	var n int
	if err := s.Open(t, "kept").QueryRowContext(t.Context(), "SELECT n FROM x").Scan(&n); err != nil || n != 42 {
		t.Errorf("after the kill: %d, %v", n, err)
	}
}

// TestServerEndsWithItsProcess runs this test program again, lets it start a
// server, and kills it.
func TestServerEndsWithItsProcess(t *testing.T) {
	t.Parallel()
	const role = "TESTDB_CHILD_SOCKET_FILE"
	if file := os.Getenv(role); file != "" {
		s := testdb.Start(t)
		if err := os.WriteFile(file, []byte(s.Socket()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file, file+".done"); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	file := filepath.Join(t.TempDir(), "socket")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServerEndsWithItsProcess$")
	child.Env = append(os.Environ(), role+"="+file)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var socket []byte
	wait(t, "the child's server", func() bool {
		text, err := os.ReadFile(file + ".done")
		socket = text
		return err == nil
	})
	dir := filepath.Dir(string(socket))
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	wait(t, "the end of the server and of its directory", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) && errors.Is(err, fs.ErrNotExist)
	})
}

func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited a minute for %s", what)
		}
	}
}
