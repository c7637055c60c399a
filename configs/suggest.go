package configs

import "strings"

// nearest is the candidate that s was most likely meant to be: the one at the smallest edit distance, if that is at most
// a third of the longer word (and at least 1 is always tried); "" if none is near. Ties go to the earlier candidate.
func nearest(s string, candidates []string) string {
	best, bestDistance := "", 0
	low := strings.ToLower(s)
	for _, c := range candidates {
		d := editDistance(low, strings.ToLower(c))
		limit := max(1, max(len(s), len(c))/3)
		if d <= limit && (best == "" || d < bestDistance) {
			best, bestDistance = c, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal string
// alignment). Words longer than 64 letters are cut: nobody misspells a key of ours at such length.
func editDistance(a, b string) int {
	const longest = 64
	x, y := []rune(a), []rune(b)
	x, y = x[:min(len(x), longest)], y[:min(len(y), longest)]
	before, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := range x {
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}
