package store

// Parts returns how many of so many rows go into each statement.
func Parts(count int, row func(i int) ([]any, error)) (rows []int, err error) {
	s := source{count, row}
	p, at := s.part(0), 0
	for p.rows > 0 {
		rows, at = append(rows, p.rows), at+p.rows
		p = s.part(at)
	}
	return rows, p.err
}
