package testdb

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// startTimeout bounds how long a server may take until it answers; a loaded
// machine with two cores needs a few seconds.
const startTimeout = 60 * time.Second

// guardian runs the server as its child and kills it, and removes the
// directory, when its own standard input closes: that happens when the test
// process ends, however it ends. It prints the server's process id; after that
// only the server holds that pipe, as descriptor 3, so its end is the server's.
// $1 is the directory, the rest is the command.
const guardian = `dir=$1; shift
"$@" 3>&1 </dev/null >>"$dir/log" 2>&1 &
pid=$!
echo "$pid"
exec >/dev/null
read -r how
kill -KILL "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
[ "$how" = keep ] || rm -rf "$dir"
`

// Server is a running mariadbd.
type Server struct {
	dir      string
	mariadbd string
	options  []string
	// env is added to the environment.
	env   []string
	count atomic.Int64

	guard *exec.Cmd
	// life is the guardian's standard input, out its standard output.
	life io.WriteCloser
	out  io.ReadCloser
	pid  int
}

// start starts a server whose directory is in parent, or in that of temporary files if
// that is "".
func start(parent string, options ...string) (*Server, error) {
	s, err := newServer(parent, options...)
	if err != nil {
		return nil, err
	}
	if err := s.bootstrap(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.run(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// newServer returns a server with an empty directory that does not run.
func newServer(parent string, options ...string) (*Server, error) {
	mariadbd, err := findProgram()
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(parent)
	if err != nil {
		return nil, err
	}
	return &Server{dir: dir, mariadbd: mariadbd, options: options}, nil
}

func findProgram() (string, error) {
	for _, name := range []string{"mariadbd", "/usr/sbin/mariadbd", "/usr/libexec/mariadbd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("mariadbd is missing: run `make test`, which installs it, or `apt-get install --no-install-recommends mariadb-server-core`")
}

// makeDir returns a directory in parent, whose path must be short enough for a socket,
// or in that of temporary files if it is "".
func makeDir(parent string) (string, error) {
	if parent == "" {
		if parent = os.TempDir(); len(parent) > 60 {
			parent = "/tmp"
		}
	}
	dir, err := os.MkdirTemp(parent, "buddyring-testdb-")
	if err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	return dir, nil
}

func (s *Server) socket() string { return filepath.Join(s.dir, "sock") }

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) arguments(more ...string) []string {
	args := []string{
		"--no-defaults", "--datadir=" + s.data(), "--tmpdir=" + s.dir,
		"--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--performance-schema=OFF",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--user=root")
	}
	return append(args, more...)
}

// bootstrap makes the system tables, as mariadb-install-db does, but without the
// help texts and without programs of other packages.
func (s *Server) bootstrap() error {
	if err := os.Mkdir(s.data(), 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	script := bytes.NewBufferString("CREATE DATABASE mysql;\nUSE mysql;\n")
	for _, name := range []string{"mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"} {
		text, err := readShare(name)
		if err != nil {
			return err
		}
		script.Write(text)
	}
	cmd := exec.Command(s.mariadbd, s.arguments("--bootstrap")...) //nolint:gosec,noctx // our own program, which ends by itself
	cmd.Stdin = script
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make system tables: %w\n%s", err, out)
	}
	return nil
}

func readShare(name string) ([]byte, error) {
	for _, dir := range []string{"/usr/share/mysql", "/usr/share/mariadb"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return text, nil
		}
	}
	return nil, fmt.Errorf("%s is missing from /usr/share/mysql: run `apt-get install --reinstall mariadb-server-core`", name)
}

// run starts the server under its guardian, with more options for this once, and
// waits until it answers.
func (s *Server) run(once ...string) error {
	args := append([]string{"-c", guardian, "guardian", s.dir, s.mariadbd},
		s.arguments("--skip-networking", "--socket="+s.socket(), "--pid-file="+filepath.Join(s.dir, "pid"))...)
	args = append(append(args, s.options...), once...)
	guard := exec.Command("/bin/sh", args...) //nolint:gosec,noctx // our own program, which lives until its standard input closes
	// A signal from the terminal is for the tests; the guardian hears of it by
	// their end.
	guard.Env = append(os.Environ(), s.env...)
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	life, err := guard.StdinPipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	out, err := guard.StdoutPipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	if err := guard.Start(); err != nil {
		return fmt.Errorf("start guardian: %w", err)
	}
	s.guard, s.life, s.out = guard, life, out
	if _, err := fmt.Fscanln(out, &s.pid); err != nil {
		return fmt.Errorf("read process id: %w", err)
	}
	return s.waitUntilUp()
}

func (s *Server) waitUntilUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := s.exec(ctx, "DO 1")
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || s.endsWithin(20*time.Millisecond) {
			return fmt.Errorf("wait for mariadbd: %w\n%s", err, s.logTail())
		}
	}
}

// endsWithin waits for the server to end, at most for d.
func (s *Server) endsWithin(d time.Duration) bool {
	if f, ok := s.out.(*os.File); ok {
		if err := f.SetReadDeadline(time.Now().Add(d)); err != nil {
			return true
		}
	}
	_, err := s.out.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// exec runs a statement as the server's administrator, on a connection of its
// own, so that nothing is left behind.
func (s *Server) exec(ctx context.Context, statement string) error {
	db, err := s.open("")
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, statement)
	return errors.Join(err, db.Close())
}

func (s *Server) open(database string) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "unix", s.socket(), database
	cfg.Logger = &mysql.NopLogger{}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("configure connection: %w", err)
	}
	return sql.OpenDB(c), nil
}

func (s *Server) logTail() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(text[max(0, len(text)-4000):])
}

// end kills the server and waits for its guardian, which removes the directory
// unless it is told to keep it.
func (s *Server) end(keep bool) error {
	if s.guard == nil {
		return nil
	}
	var errs []error
	if keep {
		_, err := io.WriteString(s.life, "keep\n")
		errs = append(errs, err)
	}
	errs = append(errs, s.life.Close(), s.guard.Wait())
	s.guard = nil
	return errors.Join(errs...)
}

func (s *Server) close() error {
	return errors.Join(s.end(false), os.RemoveAll(s.dir))
}

// Database returns the store URL of a fresh, empty database, which is dropped
// when the test ends.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", s.count.Add(1))
	s.Exec(t, "CREATE DATABASE "+name)
	t.Cleanup(func() { s.Exec(t, "DROP DATABASE "+name) })
	return s.URL(name)
}

// URL returns the store URL of a database on this server.
func (s *Server) URL(database string) string {
	return SocketURL(database, s.socket())
}

// Socket returns the path of the server's socket.
func (s *Server) Socket() string { return s.socket() }

// SocketURL returns the store URL of a database behind sockets, in the order in which
// they are tried.
func SocketURL(database string, sockets ...string) string {
	hosts := make([]string, len(sockets))
	for i, s := range sockets {
		hosts[i] = strings.ReplaceAll(url.PathEscape(s), "/", "%2F")
	}
	return "mysql://root@" + strings.Join(hosts, ",") + "/" + database
}

// Open opens a database as the server's administrator, "" for none, until the test
// ends.
func (s *Server) Open(t testing.TB, database string) *sql.DB {
	t.Helper()
	db, err := s.open(database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // sessions to killed servers cannot end well
	return db
}

// Exec runs a statement as the server's administrator.
func (s *Server) Exec(t testing.TB, statement string) {
	t.Helper()
	if err := s.exec(context.Background(), statement); err != nil {
		t.Errorf("%s: %v", statement, err)
	}
}

// Kill ends the server by SIGKILL and keeps its data.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.end(true); err != nil {
		t.Fatalf("kill mariadbd: %v", err)
	}
}

// Restart starts a killed server on the data it left and waits until it
// answers.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatalf("restart mariadbd: %v", err)
	}
}

// Signal sends a signal to the server, such as SIGSTOP and SIGCONT.
func (s *Server) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(s.pid, sig); err != nil {
		t.Fatalf("signal mariadbd: %v", err)
	}
}
