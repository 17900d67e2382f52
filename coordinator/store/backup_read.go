package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/buddyring/buddyring/internal/member"
)

// backupLine bounds a line: a row with its longest texts escaped.
const backupLine = 16 << 20

// backupReader reads a backup row by row.
type backupReader struct {
	in   *bufio.Scanner
	hash hash.Hash
	// last is the line that was read last; it is not in hash yet.
	last []byte
	rows int64
	// n counts lines, for messages.
	n int
}

func newBackupReader(r io.Reader) *backupReader {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), backupLine)
	return &backupReader{in: in, hash: sha256.New()}
}

// CheckBackup reads a whole backup and says what it is of. A backup that is not
// whole, or not one, is a member.FieldError.
func CheckBackup(r io.Reader) (BackupInfo, error) {
	return newBackupReader(r).read(func(table, []any) error { return nil })
}

// read calls row for every row with the part of its table that the backup has.
// Only after read has returned nil is it known that the backup is whole.
func (b *backupReader) read(row func(table, []any) error) (BackupInfo, error) {
	header, err := b.header()
	if err != nil {
		return BackupInfo{}, err
	}
	var current *table
	seen := 0
	for {
		if err := b.scan(); err != nil {
			return BackupInfo{}, err
		}
		switch {
		case bytes.HasPrefix(b.last, []byte("[")):
			if current == nil {
				return BackupInfo{}, b.wrong("a row of no table")
			}
			values, err := b.row(len(strings.Split(current.columns, ", ")))
			if err != nil {
				return BackupInfo{}, err
			}
			if err := row(*current, values); err != nil {
				return BackupInfo{}, err
			}
		case bytes.HasPrefix(b.last, []byte(`{"table"`)):
			t, at, err := b.table(seen)
			if err != nil {
				return BackupInfo{}, err
			}
			current, seen = &t, at+1
		default:
			return header.info(b.rows), b.end()
		}
	}
}

func (b *backupReader) header() (header backupHeader, err error) {
	err = b.next(&header)
	unread := b.in.Err() != nil && !errors.Is(b.in.Err(), bufio.ErrTooLong)
	switch {
	case unread:
		return header, err
	case header.Format != backupFormat:
		return header, member.Invalid("backup", `it is no backup: its first line is not what "buddyctl backup" writes`)
	case header.Version != backupVersion:
		return header, b.wrong("its format is version %d; this program reads version %d", header.Version, backupVersion)
	}
	return header, err
}

// scan reads a line; the one before it is taken into the sum.
func (b *backupReader) scan() error {
	if b.last != nil {
		b.hash.Write(append(b.last, '\n'))
	}
	b.n++
	if !b.in.Scan() {
		if err := b.in.Err(); err != nil {
			return b.wrong("%v", err)
		}
		return b.wrong("it ends too early")
	}
	b.last = bytes.Clone(b.in.Bytes())
	return nil
}

func (b *backupReader) next(v any) error {
	if err := b.scan(); err != nil {
		return err
	}
	return b.decode(v)
}

func (b *backupReader) decode(v any) error {
	d := json.NewDecoder(bytes.NewReader(b.last))
	d.UseNumber()
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return b.wrong("it is cut off, or damaged")
	}
	if err != nil {
		return b.wrong("%v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return b.wrong("more than one value")
	}
	return nil
}

// table returns the table of a line, with the columns that are there, and its
// place; places before from are over.
func (b *backupReader) table(from int) (table, int, error) {
	var line backupTable
	if err := b.decode(&line); err != nil {
		return table{}, 0, err
	}
	at := slices.IndexFunc(backupTables, func(t table) bool { return t.name == line.Table })
	if at < from {
		return table{}, 0, b.wrong("table %q is unknown, or not in its place", line.Table)
	}
	known := strings.Split(backupTables[at].columns, ", ")
	for i, c := range line.Columns {
		if !slices.Contains(known, c) || slices.Contains(line.Columns[:i], c) {
			return table{}, 0, b.wrong("column %q of table %s is unknown, or there twice", c, line.Table)
		}
	}
	for c := range strings.SplitSeq(backupTables[at].key, ", ") {
		if !slices.Contains(line.Columns, c) {
			return table{}, 0, b.wrong("table %s lacks the column %s", line.Table, c)
		}
	}
	return table{name: line.Table, columns: strings.Join(line.Columns, ", ")}, at, nil
}

func (b *backupReader) row(width int) ([]any, error) {
	var values []any
	if err := b.decode(&values); err != nil {
		return nil, err
	}
	if len(values) != width {
		return nil, b.wrong("%d values for %d columns", len(values), width)
	}
	for i, v := range values {
		switch v := v.(type) {
		case nil, string:
		case json.Number:
			n, err := number(v.String())
			if err != nil {
				return nil, b.wrong("%v", err)
			}
			values[i] = n
		default:
			return nil, b.wrong("value %d is neither a text, a number nor null", i+1)
		}
	}
	b.rows++
	return values, nil
}

func number(s string) (any, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return n, nil
	}
	return strconv.ParseFloat(s, 64)
}

// end checks the last line and that nothing follows.
func (b *backupReader) end() error {
	var end backupEnd
	if err := b.decode(&end); err != nil {
		return err
	}
	if end.Rows != b.rows || end.SHA256 != hex.EncodeToString(b.hash.Sum(nil)) {
		return b.wrong("it is damaged: %d rows, or their sum, are not what was written", b.rows)
	}
	if b.in.Scan() {
		return b.wrong("something follows its end")
	}
	return nil
}

func (b *backupReader) wrong(format string, args ...any) error {
	args = append([]any{b.n}, args...)
	return member.Invalid("backup", "line %d: "+format, args...)
}
