package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits that the server keeps in our sessions. A leader that stops in the
// middle of a transaction, or loses the network, says no goodbye: until its
// session ends, it holds the locks that its successor needs. idleSession ends it
// before a standby takes over.
const (
	lockWait       = 5 * time.Second
	statementLimit = 8 * time.Second
	idleSession    = 3 * time.Second
)

var (
	// errReadOnly: the server is a replica, or was told to take no writes.
	errReadOnly = errors.New("the server is read-only (read_only or super_read_only is set): " +
		"it is a replica: name the primary in --store; or somebody has set it: turn it off")
	// errNotPrimary: a Galera node on its own does not know what is acknowledged.
	errNotPrimary = errors.New("the Galera node is not part of a primary component (wsrep_cluster_status, wsrep_ready): " +
		"bring its cluster back")
	// errUnshared: what is written there is lost to the other nodes, and parts them.
	errUnshared = errors.New("the Galera node keeps what is written to it from its cluster (wsrep_on): SET GLOBAL wsrep_on = ON")
)

// variables are settings or states of a server by their lower-case names. What a
// server does not know is not there.
type variables map[string]string

func (v variables) on(name string) bool { return v[name] == "ON" || v[name] == "1" }

func (v variables) has(name string) bool {
	_, ok := v[name]
	return ok
}

// asked are the settings that matter to us.
var asked = []string{ //nolint:gochecknoglobals // a constant list
	"version", "read_only", "super_read_only", "log_bin", "sync_binlog", "innodb_flush_log_at_trx_commit",
	"wsrep_on", "wsrep_provider", "max_statement_time", "max_execution_time",
}

// settingsOf reads the settings of a new session of the server behind c: wsrep_on of
// Percona's Galera nodes is of sessions only.
func settingsOf(ctx context.Context, c driver.QueryerContext) (variables, error) {
	return show(ctx, c, "SHOW VARIABLES WHERE Variable_name IN ('"+strings.Join(asked, "', '")+"')")
}

// tune makes sessions on MariaDB, MySQL and Galera alike, and passes by servers
// that cannot be written to. What the driver sets itself is in mysqlConnector.
func (f *failover) tune(ctx context.Context, s *dbServer, c mysqlConn) error {
	settings, err := settingsOf(ctx, c)
	if err != nil {
		return err
	}
	if settings.on("read_only") || settings.on("super_read_only") {
		return errReadOnly
	}
	if err := checkNode(ctx, c, settings); err != nil {
		return err
	}
	if f.checked.Load() {
		f.warn(ctx, s, settings)
	}
	set := sessionSettings(settings, f.limited)
	if len(set) == 0 {
		return nil
	}
	list := make([]string, 0, len(set))
	for _, name := range slices.Sorted(maps.Keys(set)) {
		list = append(list, name+" = "+set[name])
	}
	if _, err := c.ExecContext(ctx, "SET "+strings.Join(list, ", "), nil); err != nil {
		return fmt.Errorf("set session: %w", err)
	}
	return nil
}

// sessionSettings is what is set on a server with these settings. Migrations
// are not limited.
func sessionSettings(has variables, limited bool) variables {
	set := variables{}
	if limited {
		set["wait_timeout"], set["lock_wait_timeout"] = seconds(idleSession), seconds(lockWait)
		if has.has("max_statement_time") {
			set["max_statement_time"] = seconds(statementLimit)
		}
		if has.has("max_execution_time") {
			set["max_execution_time"] = strconv.FormatInt(statementLimit.Milliseconds(), 10)
		}
	}
	if has.on("wsrep_on") {
		// A transaction begins after what any node has acknowledged, and a migration
		// is one of the whole cluster.
		set["wsrep_sync_wait"], set["wsrep_dirty_reads"], set["wsrep_osu_method"] = "1", "OFF", "TOI"
	}
	return set
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }

// checkNode passes by a Galera node on its own, which still answers some questions, and
// one that takes writes for itself. A server that is told of a provider may have none.
func checkNode(ctx context.Context, c driver.QueryerContext, settings variables) error {
	on, provider := settings.on("wsrep_on"), settings["wsrep_provider"]
	if !on && (provider == "" || provider == "none") {
		return nil
	}
	state, err := show(ctx, c, "SHOW STATUS WHERE Variable_name IN ('wsrep_connected', 'wsrep_ready', 'wsrep_cluster_status')")
	switch {
	case err != nil:
		return err
	case on && (!state.on("wsrep_ready") || state["wsrep_cluster_status"] != "Primary"):
		return errNotPrimary
	case !on && state.on("wsrep_connected"):
		return errUnshared
	}
	return nil
}

// show runs a SHOW of names and values.
func show(ctx context.Context, c driver.QueryerContext, statement string) (found variables, err error) {
	rows, err := c.QueryContext(ctx, statement, nil)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	found = variables{}
	pair := make([]driver.Value, 2)
	for {
		if err := rows.Next(pair); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("read settings: %w", err)
		}
		name, err := text(pair[0])
		if err != nil {
			return nil, err
		}
		value, err := text(pair[1])
		if err != nil {
			return nil, err
		}
		found[strings.ToLower(name)] = value
	}
}
