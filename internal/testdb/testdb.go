// Package testdb runs a private MariaDB for tests: a real mariadbd on a unix
// socket in a directory of its own, without TCP, with the shipped defaults that
// matter to durability, and a fresh database per test. It needs the programs of
// mariadb-server-core and no system service; it works as root and as any other
// user. Tests that use it carry a build tag.
//
// The server ends with the process that started it, also when that process is
// killed, and leaves no file behind.
package testdb

import (
	"fmt"
	"sync"
	"testing"
)

// MariaDB returns the store URL of a fresh, empty database on the server that
// all tests of this process share. The database is dropped when the test ends.
func MariaDB(t testing.TB) string {
	t.Helper()
	return Shared(t).Database(t)
}

// Shared returns the server that all tests of this process share. Tests must
// not harm it.
func Shared(t testing.TB) *Server {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

//nolint:gochecknoglobals // one server per test process is the purpose; it ends with the process
var shared = sync.OnceValues(func() (*Server, error) {
	s, err := start("")
	if err != nil {
		return nil, fmt.Errorf("start the shared MariaDB: %w", err)
	}
	return s, nil
})

// Start returns a server of the test's own, for tests that stop or kill it or
// give it options of mariadbd. It ends with the test.
func Start(t testing.TB, options ...string) *Server {
	t.Helper()
	return StartIn(t, "", options...)
}

// StartIn is Start with the server's files in a directory, such as a small disk, that of
// temporary files if it is "". Its path is to be short: a socket is in it.
func StartIn(t testing.TB, dir string, options ...string) *Server {
	t.Helper()
	s, err := start(dir, options...)
	if err != nil {
		t.Fatalf("start a MariaDB: %v", err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("stop MariaDB: %v", err)
		}
	})
	return s
}
