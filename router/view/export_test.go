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
