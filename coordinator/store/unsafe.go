package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// UnsafeError says why a database is refused: what it acknowledges could be
// lost, or names that differ could be taken for one. Its text says what to do.
type UnsafeError struct {
	// Where is the server, or empty for the database as a whole.
	Where string
	// Setting has Value and must be Want, because of Risk.
	Setting, Value, Want, Risk string
	// Remedy says what to do.
	Remedy string
}

func (e *UnsafeError) Error() string {
	text := fmt.Sprintf("%s is %s and must be %s, or else %s: %s", e.Setting, e.Value, e.Want, e.Risk, e.Remedy)
	if e.Where != "" {
		return e.Where + ": " + text
	}
	return text
}

// demand is a setting of a server without which acknowledged changes can be
// lost.
type demand struct {
	name, want, risk string
	// met judges a value, given all settings.
	met func(value string, all variables) bool
}

// demands on a server. Where a server does not have a setting, it is met.
var demands = []demand{ //nolint:gochecknoglobals // a constant table
	{
		"innodb_flush_log_at_trx_commit", "1", "a crash of its host loses changes that were acknowledged",
		// MariaDB's 3 waits for the disk even more often.
		func(v string, all variables) bool {
			return v == "1" || v == "3" && strings.Contains(all["version"], "MariaDB")
		},
	},
	{
		"sync_binlog", "1 while log_bin is on", "a crash of its host loses changes that were acknowledged",
		func(v string, all variables) bool { return v == "1" || !all.on("log_bin") },
	},
}

// UnsafeSettings returns the names that Config.AcceptUnsafe can have.
func UnsafeSettings() []string {
	names := make([]string, len(demands))
	for i, d := range demands {
		names[i] = d.name
	}
	return names
}

// unmet returns what is unsafe about a server with these settings.
func unmet(has variables) []*UnsafeError {
	var list []*UnsafeError
	for _, d := range demands {
		if v, ok := has[d.name]; ok && !d.met(v, has) {
			list = append(list, &UnsafeError{
				Setting: d.name, Value: v, Want: d.want, Risk: d.risk,
				Remedy: "set it on the server, or accept the risk with --store-accept-unsafe=" + d.name,
			})
		}
	}
	return list
}

// refuseUnsafe looks at every server that can be reached, not only at the one in
// use, and returns an *UnsafeError for each setting that is neither met nor
// accepted. Servers that are down are for later.
func (f *failover) refuseUnsafe(ctx context.Context, accepted []string) error {
	errs := make([]error, len(f.servers))
	var asking sync.WaitGroup
	for i, s := range f.servers {
		asking.Go(func() {
			settings, err := s.settings(ctx)
			if err != nil {
				f.log.WarnContext(ctx, "the settings of a database server are not checked", "server", s.host.address, "error", err)
				return
			}
			for _, e := range unmet(settings) {
				if !slices.Contains(accepted, e.Setting) {
					e.Where = s.host.address
					errs[i] = errors.Join(errs[i], e)
				}
			}
			if errs[i] == nil {
				f.warn(ctx, s, settings)
			}
		})
	}
	asking.Wait()
	f.checked.Store(true)
	return errors.Join(errs...)
}

// settings asks the server on a connection of its own.
func (s *dbServer) settings(ctx context.Context) (found variables, err error) {
	ctx, cancel := context.WithTimeout(ctx, mysqlDial)
	defer cancel()
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return settingsOf(ctx, c)
}

// warn logs, once per server, what is unsafe about one that is used all the
// same: it was accepted, or came about after the start. Refusing it then would
// stop every change for a risk that somebody just took on purpose.
func (f *failover) warn(ctx context.Context, s *dbServer, has variables) {
	list := unmet(has)
	if len(list) == 0 {
		s.warned.Store(false)
		return
	}
	if s.warned.Swap(true) {
		return
	}
	for _, e := range list {
		f.log.WarnContext(ctx, "the database can lose changes that it has acknowledged",
			"server", s.host.address, "setting", e.Setting, "value", e.Value, "wanted", e.Want)
	}
}
