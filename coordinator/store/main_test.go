package store_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The durability tests run this program again as the process that is killed.
	if url := os.Getenv(committerURL); url != "" {
		commitForever(url)
		return
	}
	goleak.VerifyTestMain(m)
}
