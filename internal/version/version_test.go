package version_test

import (
	"strings"
	"testing"

	"github.com/buddyring/buddyring/internal/version"
)

func TestVersionIsOneWord(t *testing.T) {
	t.Parallel()
	for _, v := range []string{version.String(), version.Go()} {
		if v == "" || strings.ContainsAny(v, " \n\"") {
			t.Errorf("%q is no version", v)
		}
	}
}
