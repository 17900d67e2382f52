package leak

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { Main(m) }

func TestWhoEndsLateIsWaitedFor(t *testing.T) {
	already := goleak.IgnoreCurrent()
	go time.Sleep(2 * time.Second)
	if err := find(patience, already); err != nil {
		t.Error(err)
	}
}

func TestWhoStaysIsTold(t *testing.T) {
	already := goleak.IgnoreCurrent()
	stay := make(chan struct{})
	go func() { <-stay }()
	if err := find(0, already); err == nil {
		t.Error("nobody is told of a goroutine that stays")
	}
	close(stay)
}
