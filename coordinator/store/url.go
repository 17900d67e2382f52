package store

import (
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/buddyring/buddyring/internal/member"
)

// The kinds of databases.
const (
	KindSQLite = "sqlite"
	KindMySQL  = "mysql"
)

// urlField is the flag that every complaint about a URL names.
const urlField = "store"

const mysqlPort = "3306"

// target is a parsed Config.URL.
type target struct {
	kind string
	// path is the file of a SQLite database.
	path string
	// user, database and hosts say where a MySQL database is. The hosts are
	// tried in order.
	user, database string
	hosts          []host
}

// host is where one MySQL server listens: a "tcp" address HOST:PORT or the path
// of a "unix" socket.
type host struct{ network, address string }

// parseURL reads sqlite:PATH or mysql://USER@HOST[:PORT][,HOST[:PORT]...]/DB.
// A HOST may also be the path of a unix socket, with its slashes written %2F.
func parseURL(s string) (target, error) {
	if path, ok := strings.CutPrefix(s, KindSQLite+":"); ok {
		return parseSQLite(path)
	}
	if rest, ok := strings.CutPrefix(s, KindMySQL+"://"); ok {
		return parseMySQL(rest)
	}
	if s == "" {
		return target{}, member.Invalid(urlField, "must not be empty; use sqlite:PATH or mysql://USER@HOST/DB")
	}
	// A text without a known scheme may hold a password: it is not repeated.
	return target{}, member.Invalid(urlField, "is neither sqlite:PATH nor mysql://USER@HOST/DB")
}

func parseSQLite(path string) (target, error) {
	switch {
	case path == "", strings.HasSuffix(path, "/"):
		return target{}, member.Invalid(urlField, "sqlite: needs the path of a file, as in sqlite:/var/lib/buddyring/store.db")
	case path == ":memory:":
		return target{}, member.Invalid(urlField, "a database in memory would forget its servers; name a file")
	case strings.HasPrefix(path, "//"):
		return target{}, member.Invalid(urlField, "sqlite:%s: write the path right after the colon, as in sqlite:/var/lib/buddyring/store.db", path)
	case strings.ContainsRune(path, 0):
		return target{}, member.Invalid(urlField, "the path has a zero byte")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return target{}, member.Invalid(urlField, "sqlite:%s: %v", path, err)
	}
	return target{kind: KindSQLite, path: abs}, nil
}

func parseMySQL(rest string) (target, error) {
	user, rest, ok := strings.Cut(rest, "@")
	if !ok || user == "" {
		return target{}, member.Invalid(urlField, "mysql: names no user; use mysql://USER@HOST/DB")
	}
	if strings.Contains(user, ":") {
		return target{}, member.Invalid(urlField, "must not hold a password; put it into the file of store-password-file")
	}
	name, err := url.PathUnescape(user)
	if err != nil {
		return target{}, member.Invalid(urlField, "mysql: the user is not well escaped")
	}
	hosts, database, ok := strings.Cut(rest, "/")
	if !ok || !databaseName.MatchString(database) {
		return target{}, member.Invalid(urlField, "mysql: %q is not the name of a database; use mysql://USER@HOST/DB with letters, digits, _, $ and -", database)
	}
	t := target{kind: KindMySQL, user: name, database: database}
	for text := range strings.SplitSeq(hosts, ",") {
		h, err := parseHost(text)
		if err != nil {
			return target{}, err
		}
		t.hosts = append(t.hosts, h)
	}
	return t, nil
}

var databaseName = regexp.MustCompile(`^[A-Za-z0-9_$-]{1,64}$`)

func parseHost(s string) (host, error) {
	if path, err := url.PathUnescape(s); err == nil && strings.HasPrefix(path, "/") {
		return host{"unix", path}, nil
	}
	name, port := s, mysqlPort
	if h, p, err := net.SplitHostPort(s); err == nil {
		name, port = h, p
	} else {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	}
	address := net.JoinHostPort(name, port)
	if err := member.CheckHostPort(urlField, address); err != nil {
		return host{}, member.Invalid(urlField, "mysql: %q is not HOST or HOST:PORT", s)
	}
	return host{"tcp", address}, nil
}

// String names the target for people; it never holds a secret.
func (t target) String() string {
	if t.kind == KindSQLite {
		return KindSQLite + ":" + t.path
	}
	hosts := make([]string, len(t.hosts))
	for i, h := range t.hosts {
		hosts[i] = h.address
	}
	return KindMySQL + "://" + strings.Join(hosts, ",") + "/" + t.database
}
