package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// A backup is a text of lines, each a JSON value: a header, then for each table
// a line that names it with its columns and a line per row, and at the end the
// number of rows and the SHA-256 of all lines before. It is the same from both
// dialects. Since schemas only expand, a later program reads it too: columns
// that it does not have get their defaults.
const (
	backupFormat  = "buddyring-backup"
	backupVersion = 1
)

const poolColumns = "name, epoch, revision, last_change_id, compacted_revision, reference_size, settings"

// backupTables are those of a backup, in its order. leader is not one: a
// restored database is another one, with no leader yet. Nor is router: what
// routers have applied is of another history.
var backupTables = []table{ //nolint:gochecknoglobals // a constant list
	{"pool", poolColumns, "name"},
	{"server", serverColumns, "pool, server_id"},
	{"intent", intentColumns, "pool, server_id"},
	{"departed", departedColumns, "pool, server_id"},
	{"event", eventColumns, "pool, revision, seq"},
	{"request", requestColumns, "pool, request_id"},
	{"deleted_pool", deletedColumns, "name"},
}

// BackupInfo says what a backup is of.
type BackupInfo struct {
	// Schema is the number of the schema.
	Schema int64
	// StoreID and Epoch are those of the database then.
	StoreID string
	Epoch   member.Epoch
	At      time.Time
	// Rows counts the rows of all tables.
	Rows int64
}

// The lines of a backup that are not rows.
type (
	backupHeader struct {
		Format  string       `json:"format"`
		Version int          `json:"version"`
		Schema  int64        `json:"schema"`
		StoreID string       `json:"store_id"`
		Epoch   member.Epoch `json:"epoch"`
		At      time.Time    `json:"at"`
	}
	backupTable struct {
		Table   string   `json:"table"`
		Columns []string `json:"columns"`
	}
	backupEnd struct {
		Rows   int64  `json:"rows"`
		SHA256 string `json:"sha256"`
	}
)

// Backup writes everything that can be restored, as of one moment. After an
// error what was written is of no use.
func (s *Store) Backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	out := &backupWriter{w: w, hash: sha256.New()}
	schema, err := s.schemaVersion(ctx)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("back up: %w", err)
	}
	header := backupHeader{Format: backupFormat, Version: backupVersion, Schema: schema, At: time.Now().UTC()}
	var failed error
	err = s.read(ctx, func(x tx) error {
		if failed == nil { // what is written cannot be taken back for another attempt
			failed = out.all(ctx, x, &header)
		}
		return failed
	})
	if err != nil {
		return BackupInfo{}, fmt.Errorf("back up: %w", err)
	}
	return header.info(out.rows), nil
}

func (h backupHeader) info(rows int64) BackupInfo {
	return BackupInfo{Schema: h.Schema, StoreID: h.StoreID, Epoch: h.Epoch, At: h.At, Rows: rows}
}

type backupWriter struct {
	w    io.Writer
	hash hash.Hash
	rows int64
}

func (b *backupWriter) all(ctx context.Context, x tx, header *backupHeader) error {
	if err := x.QueryRowContext(ctx, "SELECT store_id, epoch FROM leader WHERE id = 1").Scan(&header.StoreID, &header.Epoch); err != nil {
		return fmt.Errorf("read leader: %w", err)
	}
	if err := x.wholePools(ctx); err != nil {
		return err
	}
	if err := b.line(header); err != nil {
		return err
	}
	for _, t := range backupTables {
		if err := b.table(ctx, x, t); err != nil {
			return fmt.Errorf("read table %s: %w", t.name, err)
		}
	}
	return b.line(backupEnd{Rows: b.rows, SHA256: hex.EncodeToString(b.hash.Sum(nil))})
}

func (b *backupWriter) table(ctx context.Context, x tx, t table) error {
	columns := strings.Split(t.columns, ", ")
	if err := b.line(backupTable{Table: t.name, Columns: columns}); err != nil {
		return err
	}
	row, to := make([]any, len(columns)), make([]any, len(columns))
	for i := range row {
		to[i] = &row[i]
	}
	return x.each(ctx, func(rows *sql.Rows) error {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		for i, v := range row {
			switch v := v.(type) {
			case []byte:
				row[i] = string(v)
			case time.Time:
				row[i] = timestamp(v)
			}
		}
		b.rows++
		return b.line(row)
	}, "SELECT "+t.columns+" FROM "+t.name+t.ofPools()+" ORDER BY "+t.key)
}

// ofPools leaves out what deleted pools have left in a table of rows of pools: events
// and requests.
func (t table) ofPools() string {
	if !t.isOfPool() {
		return ""
	}
	return " WHERE pool IN (SELECT name FROM pool)"
}

// wholePools fails where a pool has rows and none of its own, because somebody has
// deleted that by hand: a backup without its servers and bans would be none.
func (x tx) wholePools(ctx context.Context) error {
	for _, name := range ofPool {
		var lost member.Pool
		err := x.QueryRowContext(ctx, "SELECT pool FROM "+name+" WHERE pool NOT IN (SELECT name FROM pool) LIMIT 1").Scan(&lost)
		switch {
		case err == nil:
			return errNoPool(lost, name)
		case !errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return nil
}

// isOfPool reports whether each row is of a pool.
func (t table) isOfPool() bool { return strings.HasPrefix(t.key, "pool,") }

func (b *backupWriter) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	text = append(text, '\n')
	b.hash.Write(text)
	_, err = b.w.Write(text)
	return err
}
