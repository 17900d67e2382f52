package store_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	here, err := filepath.Abs("x/store.db")
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"sqlite:/var/lib/b/store.db":                    "sqlite:/var/lib/b/store.db",
		"sqlite:x/store.db":                             "sqlite:" + here,
		"mysql://b@db/buddyring":                        "mysql://db:3306/buddyring",
		"mysql://b@db:3307/buddyring":                   "mysql://db:3307/buddyring",
		"mysql://b@db1,db2:3307,10.0.0.3/b_1":           "mysql://db1:3306,db2:3307,10.0.0.3:3306/b_1",
		"mysql://b@[2001:db8::1]:3307,[2001:db8::2]/b":  "mysql://[2001:db8::1]:3307,[2001:db8::2]:3306/b",
		"mysql://b@2001:db8::2/b":                       "mysql://[2001:db8::2]:3306/b",
		"mysql://b%40corp@%2Frun%2Fmysqld%2Fm.sock/b-1": "mysql:///run/mysqld/m.sock/b-1",
	} {
		if got, err := store.ParseURL(url); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", url, got, err, want)
		}
	}
}

func TestMalformedURLsNameTheFlag(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "store.db", "postgres://a@b/c", "sqlite:", "sqlite://store.db", "sqlite::memory:", "sqlite:dir/", "sqlite:a\x00b",
		"mysql:", "mysql://", "mysql://db/b", "mysql://@db/b", "mysql://u@/b", "mysql://u@db", "mysql://u@db/",
		"mysql://u@db/a/b", "mysql://u@db/b?tls=true", "mysql://u@db:0/b", "mysql://u@db:70000/b", "mysql://u@db:x/b",
		"mysql://u@db1,,db2/b", "mysql://u@db one/b", "mysql://u@0.0.0.0/b", "mysql://u%zz@db/b", "mysql://u@tcp(db)/b",
	} {
		_, err := store.Open(t.Context(), store.Config{URL: url})
		var field *member.FieldError
		if !errors.As(err, &field) || field.Field != "store" {
			t.Errorf("%q: %v, want a FieldError of store", url, err)
		}
	}
}

func TestPasswordsInURLsAreRefusedAndNotRepeated(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"mysql://u:sesame@db/b", "u:sesame@tcp(db)/b"} {
		_, err := store.Open(t.Context(), store.Config{URL: url})
		if !errors.Is(err, member.ErrInvalid) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestOtherSettingsNameTheirFlag(t *testing.T) {
	t.Parallel()
	file := "sqlite:" + filepath.Join(t.TempDir(), "store.db")
	for field, cfg := range map[string]store.Config{
		"migrate":             {URL: file, Migrate: "maybe"},
		"store-password-file": {URL: "mysql://u@db/b", PasswordFile: filepath.Join(t.TempDir(), "absent")},
	} {
		_, err := store.Open(t.Context(), cfg)
		var wrong *member.FieldError
		if !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%v: %v, want a FieldError of %s", cfg, err, field)
		}
	}
	if _, err := store.Open(t.Context(), store.Config{URL: file, PasswordFile: "x"}); !errors.Is(err, member.ErrInvalid) {
		t.Errorf("a password for a file: %v", err)
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("sqlite:/a/b")
	f.Add("mysql://u@h:1,[::1]:2,%2Fs/d")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := store.ParseURL(s); err != nil && !errors.Is(err, member.ErrInvalid) {
			t.Errorf("%q: %v is no complaint about the input", s, err)
		}
	})
}

// TestParseURLTakesWhatItPrints: what names a target for people is a URL again,
// but for the user.
func TestParseURLTakesWhatItPrints(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,5}(:[1-9][0-9]{0,3})?`), 1, 3).Draw(t, "hosts")
		name, err := store.ParseURL("mysql://u@" + strings.Join(hosts, ",") + "/d")
		if err != nil {
			t.Fatal(err)
		}
		again, err := store.ParseURL(strings.Replace(name, "mysql://", "mysql://u@", 1))
		if err != nil || again != name {
			t.Fatalf("%q became %q, %v", name, again, err)
		}
	})
}
