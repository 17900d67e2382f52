package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/coordinator/store"
)

func TestPartsOfManyRows(t *testing.T) {
	t.Parallel()
	mebibyte := strings.Repeat("x", 1<<20)
	for name, test := range map[string]struct {
		texts []string
		want  []int
	}{
		"none":                  {},
		"few":                   {make([]string, 3), []int{3}},
		"as many as fit":        {make([]string, 200), []int{200}},
		"more":                  {make([]string, 450), []int{200, 200, 50}},
		"long ones":             {[]string{mebibyte, "", mebibyte[1:], "x", "x"}, []int{2, 2, 1}},
		"longer than allowed":   {[]string{mebibyte + "x", mebibyte + "x"}, []int{1, 1}},
		"a long one in between": {[]string{"x", mebibyte, "x"}, []int{1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := store.Parts(len(test.texts), func(i int) ([]any, error) { return []any{i, test.texts[i]}, nil })
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("error %v; rows (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestRowThatCannotBeMade(t *testing.T) {
	t.Parallel()
	failed := errors.New("not this one")
	got, err := store.Parts(450, func(i int) ([]any, error) {
		if i == 399 {
			return nil, failed
		}
		return []any{i}, nil
	})
	if diff := cmp.Diff([]int{200}, got); diff != "" || !errors.Is(err, failed) {
		t.Errorf("error %v; rows (-want +got):\n%s", err, diff)
	}
}
