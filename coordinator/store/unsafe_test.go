package store_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func TestUnsafeSettings(t *testing.T) {
	t.Parallel()
	const flush, binlog, log, version = "innodb_flush_log_at_trx_commit", "sync_binlog", "log_bin", "version"
	for _, test := range []struct {
		has  map[string]string
		want []string
	}{
		{map[string]string{}, nil},
		{map[string]string{flush: "1", binlog: "1", log: "ON"}, nil},
		{map[string]string{flush: "0"}, []string{flush}},
		{map[string]string{flush: "2"}, []string{flush}},
		{map[string]string{flush: "3", version: "10.11.14-MariaDB"}, nil},
		{map[string]string{flush: "3", version: "8.4.0"}, []string{flush}},
		{map[string]string{flush: "1", binlog: "0", log: "OFF"}, nil},
		{map[string]string{flush: "1", binlog: "0", log: "ON"}, []string{binlog}},
		{map[string]string{flush: "1", binlog: "100", log: "1"}, []string{binlog}},
		{map[string]string{flush: "2", binlog: "0", log: "ON"}, []string{flush, binlog}},
	} {
		if got := store.Unmet(test.has); !slices.Equal(got, test.want) {
			t.Errorf("%v: %v are unsafe, want %v", test.has, got, test.want)
		}
	}
}

func TestWhatCanBeAccepted(t *testing.T) {
	t.Parallel()
	for url, names := range map[string][]string{
		"mysql://u@h/b": {"innodb_flush_log_at_trx_commit", "read_only"},
		"sqlite:store":  {"sync_binlog"},
	} {
		err := store.Config{URL: url, AcceptUnsafe: names}.Check()
		var field *member.FieldError
		if !errors.As(err, &field) || field.Field != "store-accept-unsafe" {
			t.Errorf("%s with %v: %v, want a FieldError of store-accept-unsafe", url, names, err)
		}
	}
	if err := (store.Config{URL: "mysql://u@h/b", AcceptUnsafe: store.UnsafeSettings()}).Check(); err != nil {
		t.Error(err)
	}
}
