package server

import (
	"errors"
	"testing"
)

// Whoever waits for an end hears of it, also who comes late; the first reason counts.
// What is over has no channel of its own.
func TestEndingIsHeardByAll(t *testing.T) {
	t.Parallel()
	first := errors.New("first")
	e := newEnding()
	early := e.done()
	select {
	case <-early:
		t.Fatal("it is over before its end")
	default:
	}
	if e.ended() {
		t.Fatal("it has ended before its end")
	}
	e.end(first)
	e.end(errors.New("second"))
	<-early
	<-e.done()
	if !e.ended() || !errors.Is(e.reason(), first) {
		t.Errorf("ended: %v, for %v", e.ended(), e.reason())
	}
	if e.ch != nil {
		t.Error("it keeps a channel after its end")
	}
}
