package statedir_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/buddyring/buddyring/internal/statedir"
)

func TestUnsealTakesOnlyWhatWasSealed(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"body", "two\nlines\n"} {
		whole := statedir.Seal("kind 1", []byte(body))
		if got, err := statedir.Unseal("kind 1", whole); err != nil || string(got) != body {
			t.Errorf("%q becomes %q, %v", body, got, err)
		}
		if _, err := statedir.Unseal("kind 2", whole); !errors.Is(err, statedir.ErrCorrupt) {
			t.Errorf("%q of another kind: %v", body, err)
		}
		for n := range whole {
			changed := bytes.Clone(whole)
			changed[n] ^= 1
			for _, data := range [][]byte{whole[:n], changed} {
				if _, err := statedir.Unseal("kind 1", data); !errors.Is(err, statedir.ErrCorrupt) {
					t.Errorf("%q, changed or cut at %d: %v", body, n, err)
				}
			}
		}
	}
}
