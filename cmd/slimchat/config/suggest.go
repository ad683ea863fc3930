package config

// nearest returns the candidate that is fewest edits away from word, or "" when none is near enough to have been meant.
func nearest(word string, candidates []string) string {
	best, limit := "", max(2, len(word)/3)
	for _, candidate := range candidates {
		if d := distance(word, candidate); d <= limit {
			best, limit = candidate, d-1
		}
	}
	return best
}

// distance is the number of bytes to insert, remove or replace to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
