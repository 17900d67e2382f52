package sim

import "time"

// queue holds what is to happen, in order of time and, at equal times, in the
// order in which it was put in. It is a heap of four children per node, and the
// events lie still in slots beside it.
type queue struct {
	nodes []node
	slots []event
	free  []int32
	seq   uint64
}

type node struct {
	at   time.Duration
	seq  uint64
	slot int32
}

func (a node) before(b node) bool {
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

// push arranges for e at a time.
func (q *queue) push(at time.Duration, e event) {
	var slot int32
	if n := len(q.free); n > 0 {
		slot, q.free = q.free[n-1], q.free[:n-1]
		q.slots[slot] = e
	} else {
		slot = int32(len(q.slots))
		q.slots = append(q.slots, e)
	}
	q.seq++
	q.nodes = append(q.nodes, node{at, q.seq, slot})
	i := len(q.nodes) - 1
	n := q.nodes[i]
	for i > 0 {
		parent := (i - 1) / 4
		if !n.before(q.nodes[parent]) {
			break
		}
		q.nodes[i] = q.nodes[parent]
		i = parent
	}
	q.nodes[i] = n
}

// next returns the time of the first event, or false if there is none.
func (q *queue) next() (time.Duration, bool) {
	if len(q.nodes) == 0 {
		return 0, false
	}
	return q.nodes[0].at, true
}

// pop takes the first event out of a queue that is not empty.
func (q *queue) pop() event {
	top := q.nodes[0]
	e := q.slots[top.slot]
	q.slots[top.slot] = event{}
	q.free = append(q.free, top.slot)
	last := len(q.nodes) - 1
	n := q.nodes[last]
	q.nodes = q.nodes[:last]
	if last > 0 {
		q.sink(n)
	}
	return e
}

// sink finds the place of n from the top down.
func (q *queue) sink(n node) {
	i, size := 0, len(q.nodes)
	for {
		first := 4*i + 1
		if first >= size {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, size); c++ {
			if q.nodes[c].before(q.nodes[least]) {
				least = c
			}
		}
		if !q.nodes[least].before(n) {
			break
		}
		q.nodes[i] = q.nodes[least]
		i = least
	}
	q.nodes[i] = n
}
