package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// Only what every server says for good ends a start at once.
func TestDeniedAtStart(t *testing.T) {
	t.Parallel()
	says := func(number uint16) error {
		return &mysql.MySQLError{Number: number, SQLState: [5]byte{'4', '2', '0', '0', '0'}}
	}
	for name, c := range map[string]struct {
		err  error
		want string // the problem, empty for none
	}{
		"a wrong password":       {store.NotConnected(says(1045)), "the database does not let this user in"},
		"no right, on both":      {store.NotConnected(says(1044), says(1698)), "the database does not let this user in"},
		"no such database":       {store.NotConnected(says(1049)), "there is no such database"},
		"not there, or no right": {store.NotConnected(says(1044), says(1049)), "there is no such database"},
		"not there, or down":     {store.NotConnected(says(1049), io.EOF), ""},
		"the other one is down":  {store.NotConnected(says(1045), io.EOF), ""},
		"the other one is full":  {store.NotConnected(says(1040), says(1045)), ""},
		"no time for both":       {fmt.Errorf("%w: %w", context.DeadlineExceeded, store.NotConnected(says(1045))), ""},
		"no time, told to end":   {fmt.Errorf("%w: %w", context.Canceled, store.NotConnected(says(1045))), ""},
		"a statement":            {says(1142), "this user lacks a right"},
		"another defect":         {says(1205), ""},
		"a connection that ends": {io.EOF, ""},
	} {
		err := store.AtStart(fmt.Errorf("%w: %w", member.ErrUnavailable, c.err), store.MigrateCheck)
		var denied *store.DeniedError
		switch {
		case c.want == "" && !errors.Is(err, member.ErrUnavailable):
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		case c.want != "" && (!errors.As(err, &denied) || denied.Problem != c.want || errors.Is(err, member.ErrUnavailable)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
