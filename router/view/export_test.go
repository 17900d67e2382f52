package view

// Places returns how many places of the ACTIVE table each entry has.
func Places(t *Table) []int {
	tier := &t.any.tiers[StateActive]
	counts := make([]int, len(t.entries))
	for _, i := range tier.places.of(tier.slots) {
		counts[tier.slots[i].entry]++
	}
	return counts
}

// PickTheGeneralWay is Pick without its plain way.
func PickTheGeneralWay(t *Table, r *Request) (Choice, bool) {
	o := t.offerOf(r.Endpoint)
	if o == nil {
		return Choice{}, false
	}
	return o.pick(r)
}
