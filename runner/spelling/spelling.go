// Package spelling finds what a typing error may have meant.
package spelling

import "slices"

// Sort sorts names by how near they are to what was typed, the nearest first;
// equally near ones keep their order.
func Sort(names []string, typed string) {
	slices.SortStableFunc(names, func(a, b string) int {
		return distance(a, typed) - distance(b, typed)
	})
}

// Nearest returns the name that typed was probably meant to be, or "" when none
// is within two mistakes.
func Nearest(names []string, typed string) string {
	best, limit := "", 3
	for _, name := range names {
		if d := distance(name, typed); d < limit {
			best, limit = name, d
		}
	}
	return best
}

// distance counts the bytes to insert, delete or replace to turn a into b
// (Levenshtein).
func distance(a, b string) int {
	// row[j] is the distance of what was read of a to the first j bytes of b.
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
