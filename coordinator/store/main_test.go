package store_test

import (
	"os"
	"testing"

	"github.com/buddyring/buddyring/internal/leak"
)

func TestMain(m *testing.M) {
	// The durability tests run this program again as the process that is killed.
	if url := os.Getenv(committerURL); url != "" {
		commitForever(url)
		return
	}
	leak.Main(m)
}
