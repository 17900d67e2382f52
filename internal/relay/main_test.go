package relay_test

import (
	"testing"

	"github.com/buddyring/buddyring/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
